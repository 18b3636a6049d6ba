"""Networks: their outputs, their sizes by an independent count, and the layer names that methods rely on."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from arat_ray.training import layers, split_norm
from arat_ray.training.models import MODELS, Model, PreactResnet18, Resnet18, Tiny, WideResnet
from arat_ray.training.models.blocks import NORMS, NormName, group_norm

SMALL: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 2},
    "wide_resnet": {"depth": 10, "width": 1},
    "preact_resnet18": {"width": 2},
    "vit": {"patch": 2, "width": 8, "depth": 2, "heads": 2},
    "tiny": {"width": 2},
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(spec: Any, *, channels: int = 3, num_classes: int = 10) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = spec.build((channels, 32, 32), num_classes)
        return model


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8)])
@pytest.mark.parametrize("name", list(MODELS))
def test_every_network_of_the_menu_gives_one_finite_logit_a_class(name: str, shape: tuple[int, int, int]) -> None:
    spec: Any = TypeAdapter(Model).validate_python({"name": name, **SMALL[name]})
    assert type(spec) is MODELS[name]
    x = torch.rand(4, *shape)
    kept = x.clone()
    for num_classes in (2, 7):
        logits = spec.build(shape, num_classes)(x)
        assert logits.shape == (4, num_classes)
        assert logits.isfinite().all()
    assert torch.equal(x, kept)


def resnet18_size(width: int, channels: int, num_classes: int) -> tuple[int, int]:
    """Numbers of all parameters and of those in norm layers, by the architecture's table."""
    norms = [width]
    total = 9 * channels * width + 2 * width
    inputs = width
    for stage in range(4):
        outputs = width * 2**stage
        for block in range(2):
            total += 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs
            norms += [outputs, outputs]
            if block == 0 and stage > 0:
                total += inputs * outputs + 2 * outputs
                norms.append(outputs)
            inputs = outputs
    return total + inputs * num_classes + num_classes, 2 * sum(norms)


def wide_resnet_size(depth: int, k: int, channels: int, num_classes: int) -> tuple[int, int]:
    """As above, for WRN-depth-k with a norm before each convolution of a block and one at the end."""
    norms, total, inputs = 0, 9 * channels * 16, 16
    for outputs in (16 * k, 32 * k, 64 * k):
        for _ in range((depth - 4) // 6):
            norms += 2 * inputs + 2 * outputs
            total += 9 * inputs * outputs + 9 * outputs * outputs
            total += inputs * outputs if inputs != outputs else 0
            inputs = outputs
    norms += 2 * inputs
    return total + norms + inputs * num_classes + num_classes, norms


def preact_resnet18_size(width: int, channels: int, num_classes: int) -> tuple[int, int]:
    """As above: a norm before each convolution of a block, none after the stem, one at the end."""
    norms, total, inputs = 0, 9 * channels * width, width
    for stage in range(4):
        outputs = width * 2**stage
        for _ in range(2):
            norms += 2 * inputs + 2 * outputs
            total += 9 * inputs * outputs + 9 * outputs * outputs
            total += inputs * outputs if inputs != outputs else 0
            inputs = outputs
    norms += 2 * inputs
    return total + norms + inputs * num_classes + num_classes, norms


def test_resnet18_has_11_17_million_parameters_and_11_18_with_split_norms() -> None:
    plain = on_meta(Resnet18())
    total, norms = resnet18_size(64, 3, 10)
    assert parameters(plain) == total == 11_173_962
    assert parameters(split_norm.convert(plain)) == total + norms == 11_183_562


def test_wrn_34_10_has_46_16_million_parameters_and_46_18_with_split_norms() -> None:
    plain = on_meta(WideResnet())
    total, norms = wide_resnet_size(34, 10, 3, 10)
    assert parameters(plain) == total == 46_160_474
    assert parameters(split_norm.convert(plain)) == total + norms == 46_182_906


def test_strides_change_the_maps_of_a_resnet18_and_not_its_weights() -> None:
    """LBGAT's natural network: strides 1, 1, 2, 2, so that 32x32 images end as maps of 8x8."""
    usual, larger = (Resnet18(width=2, **more).build((3, 32, 32), 10) for more in ({}, {"strides": (1, 1, 2, 2)}))
    maps = {}
    for name, model in (("usual", usual), ("larger", larger)):
        model.get_submodule("layer4").register_forward_hook(
            lambda module, x, out, name=name: maps.update({name: out.shape[1:]})
        )
        model(torch.rand(1, 3, 32, 32))
    assert maps == {"usual": (16, 4, 4), "larger": (16, 8, 8)}
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (usual, larger)]
    assert shapes[0] == shapes[1]


def test_preact_resnet18_has_the_11_172_170_parameters_of_the_fields() -> None:
    """robust_overfitting's preactresnet.py has as many."""
    plain = on_meta(PreactResnet18())
    total, norms = preact_resnet18_size(64, 3, 10)
    assert parameters(plain) == total == 11_172_170
    assert parameters(split_norm.convert(plain)) == total + norms


@pytest.mark.parametrize(("channels", "num_classes"), [(1, 10), (3, 100)])
def test_narrow_networks_are_counted_by_the_same_tables(channels: int, num_classes: int) -> None:
    sizes = {"channels": channels, "num_classes": num_classes}
    assert parameters(on_meta(Resnet18(width=16), **sizes)) == resnet18_size(16, channels, num_classes)[0]
    preact = on_meta(PreactResnet18(width=16), **sizes)
    assert parameters(preact) == preact_resnet18_size(16, channels, num_classes)[0]
    wide = on_meta(WideResnet(depth=16, width=2), **sizes)
    assert parameters(wide) == wide_resnet_size(16, 2, channels, num_classes)[0]
    w = 5
    convolutions = 9 * w * channels + 9 * w * 2 * w + 9 * 2 * w * 4 * w
    linear = 4 * w * num_classes + num_classes
    assert parameters(on_meta(Tiny(width=w, norm="none"), **sizes)) == convolutions + linear
    assert parameters(on_meta(Tiny(width=w), **sizes)) == convolutions + linear + 2 * (w + 2 * w + 4 * w)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Resnet18(width=2), ["layer4.0.bn1", "layer4.0.bn2", "layer4.1.bn1", "layer4.1.bn2"]),
        (
            WideResnet(depth=34, width=1),
            [f"block3.layer.{block}.relu{i}" for block in range(5) for i in (1, 2)] + ["avgpool"],
        ),
        (PreactResnet18(width=2), []),
        (Tiny(), []),
    ],
)
def test_the_layers_that_the_paper_regularises_have_the_names_it_uses(spec: Any, expected: list[str]) -> None:
    assert layers.select(on_meta(spec), spec.paper_layers) == expected


def test_preact_resnet18_has_the_state_names_of_the_fields_checkpoints() -> None:
    names = list(on_meta(PreactResnet18(width=2)).state_dict())
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    block = [f"bn1.{part}" for part in norm] + ["conv1.weight"] + [f"bn2.{part}" for part in norm] + ["conv2.weight"]
    expected = ["conv1.weight"]
    for stage in range(1, 5):
        for index in range(2):
            shortcut = ["shortcut.0.weight"] if stage > 1 and index == 0 else []
            expected += [f"layer{stage}.{index}.{part}" for part in block + shortcut]
    assert names == expected + [f"bn.{part}" for part in norm] + ["linear.weight", "linear.bias"]


@pytest.mark.parametrize("name", list(MODELS))
def test_the_classifier_reads_the_output_of_the_representation(name: str) -> None:
    spec: Any = MODELS[name](**SMALL[name])
    model = spec.build((1, 8, 8), 3).eval()
    read: dict[str, Any] = {}
    last = list(model.children())[-1]
    assert isinstance(last, nn.Linear)
    last.register_forward_hook(lambda module, inputs, output: read.update(classifier=inputs[0]))
    representation = model.get_submodule(spec.representation)
    representation.register_forward_hook(lambda module, inputs, output: read.update(representation=output))
    with layers.capture(model, [spec.representation]) as features:
        model(torch.rand(2, 1, 8, 8))
    assert torch.equal(read["representation"].flatten(1), read["classifier"])
    if name != "vit":  # whose features may be negative
        torch.testing.assert_close(features[spec.representation], read["classifier"])


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18", "wide_resnet", "tiny"])
def test_group_norm_stands_in_for_every_batch_norm_with_as_many_parameters(name: str) -> None:
    batch, group = (MODELS[name](**SMALL[name], norm=norm) for norm in ("batch", "group"))
    before, after = on_meta(batch), on_meta(group)
    assert [key for key, _ in before.named_parameters()] == [key for key, _ in after.named_parameters()]
    assert parameters(before) == parameters(after)
    kinds = {type(module) for module in after.modules()}
    assert nn.GroupNorm in kinds
    assert nn.BatchNorm2d not in kinds
    torch.manual_seed(0)
    model, x = group.build((1, 8, 8), 4).double().train(), torch.rand(5, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(model(x)[:1], model(x[:1]))  # no image depends on another, in train mode too


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (3, 1), (4, 1), (5, 1), (8, 2), (16, 4), (20, 5), (64, 16), (96, 24), (128, 32), (160, 32), (640, 32)],
)
def test_groups_divide_the_channels_and_hold_at_least_four(channels: int, groups: int) -> None:
    norm = group_norm(channels)
    assert isinstance(norm, nn.GroupNorm)
    assert (norm.num_groups, norm.num_channels) == (groups, channels)


@pytest.mark.parametrize("spec", [Resnet18(width=4), PreactResnet18(width=4), WideResnet(depth=10, width=1), Tiny()])
def test_stages_halve_the_resolution(spec: Any) -> None:
    last, halvings = {
        "resnet18": ("layer4", 3),
        "preact_resnet18": ("layer4", 3),
        "wide_resnet": ("block3", 2),
        "tiny": ("conv3", 2),
    }[spec.name]
    model = on_meta(spec)
    sizes: list[Any] = []
    model.get_submodule(last).register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[2:]))
    model(torch.empty(2, 3, 32, 32, device="meta"))
    assert sizes == [(32 // 2**halvings, 32 // 2**halvings)]


@pytest.mark.parametrize("depth", [33, 4, 9, 35])
def test_a_depth_that_no_wide_resnet_has_is_refused_with_those_it_has(depth: int) -> None:
    with pytest.raises(ValidationError, match=rf"depth is 6n \+ 4 \(10, 16, 22, 28, 34, 40, \.\.\.\), not {depth}"):
        WideResnet(depth=depth)


def test_the_tiny_network_can_do_without_normalisation() -> None:
    model = Tiny(norm="none").build((1, 8, 8), 10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(model(x)[:1], model(x[:1]))  # no image depends on another
    assert [name for name in layers.names(model) if name.startswith("bn")] == ["bn1", "bn2", "bn3"]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "vit"])
def test_every_convolutional_network_takes_every_norm(name: str) -> None:
    """A norm that is added to the names is offered by all of them."""
    offered = set(get_args(MODELS[name].model_fields["norm"].annotation))
    assert set(get_args(NormName)) <= offered <= set(NORMS)
