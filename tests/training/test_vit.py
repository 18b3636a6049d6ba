"""The Vision Transformer: against torch's own layers in float64, its size by an independent count, its errors."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from arat_ray.training import layers
from arat_ray.training.models import Vit
from arat_ray.training.models.vit import Attention, TransformerBlock, VisionTransformer


def tokens() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(3, 5, 12, dtype=torch.float64)


def vit(spec: Vit, shape: tuple[int, int, int] = (1, 8, 8), num_classes: int = 3) -> VisionTransformer:
    torch.manual_seed(0)
    model = spec.build(shape, num_classes)
    assert isinstance(model, VisionTransformer)
    return model


SMALL = Vit(patch=2, width=12, depth=2, heads=3, mlp_ratio=2)


@torch.no_grad()
def shake(module: nn.Module) -> None:
    """Zero biases and unit scales would hide mistakes."""
    for parameter in module.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_attention_is_torchs_multi_head_attention(heads: int) -> None:
    torch.manual_seed(0)
    mine = Attention(12, heads).double()
    shake(mine)
    theirs = nn.MultiheadAttention(12, heads, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(
        {
            "in_proj_weight": mine.qkv.weight,
            "in_proj_bias": mine.qkv.bias,
            "out_proj.weight": mine.out.weight,
            "out_proj.bias": mine.out.bias,
        }
    )
    x = tokens()
    torch.testing.assert_close(mine(x), theirs(x, x, x)[0])


def test_a_block_is_torchs_pre_norm_encoder_layer_and_so_are_its_gradients() -> None:
    torch.manual_seed(0)
    mine = TransformerBlock(12, 3, 24).double()
    shake(mine)
    theirs = nn.TransformerEncoderLayer(
        12, 3, 24, dropout=0, activation="gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    renamed = {
        "attention.qkv.": "self_attn.in_proj_",
        "attention.out.": "self_attn.out_proj.",
        "mlp.0.": "linear1.",
        "mlp.2.": "linear2.",
    }
    state = {}
    for key, value in mine.state_dict().items():
        for ours, torchs in renamed.items():
            key = key.replace(ours, torchs)
        state[key] = value
    theirs.load_state_dict(state)
    x, y = tokens().requires_grad_(), tokens().requires_grad_()
    torch.testing.assert_close(mine(x), theirs(y))
    mine(x).square().sum().backward()
    theirs(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_the_whole_network_is_patches_positions_blocks_norm_mean_classifier() -> None:
    model = vit(SMALL).double()
    shake(model)
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    state = model.state_dict()
    kernel, bias = state["patches.weight"].flatten(1), state["patches.bias"]  # [C, 4]: a 2x2 patch, row by row
    rows = []
    for i in range(4):
        for j in range(4):
            patch = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten(1)
            rows.append(patch @ kernel.T + bias + model.position[0, 4 * i + j])
    out = model.blocks[1](model.blocks[0](torch.stack(rows, 1)))
    centred = out - out.mean(2, keepdim=True)
    normed = centred / (out.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt() * model.norm.weight + model.norm.bias
    expected = normed.mean(1) @ model.linear.weight.T + model.linear.bias
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(("spec", "shape"), [(Vit(), (3, 32, 32)), (SMALL, (1, 8, 8)), (SMALL, (3, 6, 10))])
def test_its_size_is_that_of_its_table(spec: Vit, shape: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        model = vit(spec, shape, 10)
    w, hidden = spec.width, int(spec.width * spec.mlp_ratio)
    count = (shape[1] // spec.patch) * (shape[2] // spec.patch)
    block = 4 * w * w + 4 * w + 2 * w * hidden + w + hidden + 4 * w
    expected = shape[0] * spec.patch**2 * w + w + count * w + spec.depth * block + 2 * w + 10 * w + 10
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_the_default_has_4_03_million_parameters_on_cifar() -> None:
    with torch.device("meta"):
        model = vit(Vit(), (3, 32, 32), 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_027_786


def test_initial_weights_stay_within_two_standard_deviations() -> None:
    model = vit(Vit(patch=4, width=96, depth=1, heads=3), (3, 32, 32))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert parameter.abs().max() == 0, name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            deviation = 48**-0.5 if name == "patches.weight" else 0.02
            assert parameter.abs().max() <= 2 * deviation, name
            # a normal cut at two deviations has 0.88 of its deviation left
            torch.testing.assert_close(parameter.std().item(), 0.88 * deviation, rtol=0.1, atol=0)


def test_its_modules_have_the_names_to_regularise() -> None:
    known = layers.names(vit(SMALL))
    assert layers.select(vit(SMALL), ["blocks.*.norm?"]) == [f"blocks.{i}.norm{j}" for i in range(2) for j in (1, 2)]
    assert {"patches", "blocks.0.attention", "blocks.1.mlp", "norm", "avgpool", "linear"} <= set(known)


def test_positions_matter() -> None:
    model = vit(SMALL).eval()
    x = torch.rand(1, 1, 8, 8)
    assert not torch.allclose(model(x), model(x.flip(3).roll(2, 3)), atol=1e-7)


@pytest.mark.parametrize(("shape", "fitting"), [((1, 9, 9), "1, 3, 9"), ((3, 32, 30), "1, 2$")])
def test_a_patch_that_does_not_tile_the_image_is_refused_with_those_that_do(
    shape: tuple[int, int, int], fitting: str
) -> None:
    size = f"{shape[1]}x{shape[2]}"
    message = rf"model\.patch is 4, which does not divide images of {size} pixels; choose one of {fitting}"
    with pytest.raises(ValueError, match=message):
        Vit().build(shape, 10)


def test_heads_that_do_not_share_the_width_are_refused_with_those_that_do() -> None:
    with pytest.raises(ValidationError, match=r"5 does not divide 12; choose one of 1, 2, 3, 4, 6, 12"):
        Vit(width=12, heads=5)
