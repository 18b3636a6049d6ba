"""Networks: their outputs, their sizes by an independent count, and the layer names that methods rely on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from arat_ray.training import branches, layers
from arat_ray.training.models import MODELS, Model, Resnet18, Tiny, WideResnet

SMALL: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 2},
    "wide_resnet": {"depth": 10, "width": 1},
    "tiny": {"width": 2},
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(spec: Any, *, channels: int = 3, num_classes: int = 10) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = spec.build(channels, num_classes)
        return model


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8)])
@pytest.mark.parametrize("name", list(MODELS))
def test_every_network_of_the_menu_gives_one_finite_logit_a_class(name: str, shape: tuple[int, int, int]) -> None:
    spec: Any = TypeAdapter(Model).validate_python({"name": name, **SMALL[name]})
    assert type(spec) is MODELS[name]
    x = torch.rand(4, *shape)
    kept = x.clone()
    for num_classes in (2, 7):
        logits = spec.build(shape[0], num_classes)(x)
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


def test_resnet18_has_11_17_million_parameters_and_11_18_with_split_norms() -> None:
    plain = on_meta(Resnet18())
    total, norms = resnet18_size(64, 3, 10)
    assert parameters(plain) == total == 11_173_962
    assert parameters(branches.convert(plain)) == total + norms == 11_183_562


def test_wrn_34_10_has_46_16_million_parameters_and_46_18_with_split_norms() -> None:
    plain = on_meta(WideResnet())
    total, norms = wide_resnet_size(34, 10, 3, 10)
    assert parameters(plain) == total == 46_160_474
    assert parameters(branches.convert(plain)) == total + norms == 46_182_906


@pytest.mark.parametrize(("channels", "num_classes"), [(1, 10), (3, 100)])
def test_narrow_networks_are_counted_by_the_same_tables(channels: int, num_classes: int) -> None:
    sizes = {"channels": channels, "num_classes": num_classes}
    assert parameters(on_meta(Resnet18(width=16), **sizes)) == resnet18_size(16, channels, num_classes)[0]
    wide = on_meta(WideResnet(depth=16, width=2), **sizes)
    assert parameters(wide) == wide_resnet_size(16, 2, channels, num_classes)[0]
    w = 5
    convolutions = 9 * w * channels + 9 * w * 2 * w + 9 * 2 * w * 4 * w
    linear = 4 * w * num_classes + num_classes
    assert parameters(on_meta(Tiny(width=w, norm="none"), **sizes)) == convolutions + linear
    assert parameters(on_meta(Tiny(width=w), **sizes)) == convolutions + linear + 2 * (w + 2 * w + 4 * w)


@pytest.mark.parametrize(
    ("spec", "patterns", "expected"),
    [
        (Resnet18(width=2), ["layer4.*.bn?"], ["layer4.0.bn1", "layer4.0.bn2", "layer4.1.bn1", "layer4.1.bn2"]),
        (Resnet18(width=2), ["avgpool"], ["avgpool"]),
        (
            WideResnet(depth=34, width=1),
            ["block3.layer.*.relu?", "avgpool"],
            [f"block3.layer.{block}.relu{i}" for block in range(5) for i in (1, 2)] + ["avgpool"],
        ),
        (Tiny(), ["bn3", "avgpool"], ["bn3", "avgpool"]),
    ],
)
def test_the_layers_that_the_paper_regularises_have_the_names_it_uses(
    spec: Any, patterns: list[str], expected: list[str]
) -> None:
    assert layers.select(on_meta(spec), patterns) == expected


@pytest.mark.parametrize("spec", [Resnet18(width=4), WideResnet(depth=10, width=1), Tiny()])
def test_stages_halve_the_resolution(spec: Any) -> None:
    last = {"resnet18": "layer4", "wide_resnet": "block3", "tiny": "conv3"}[spec.name]
    halvings = {"resnet18": 3, "wide_resnet": 2, "tiny": 2}[spec.name]
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
    model = Tiny(norm="none").build(1, 10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(model(x)[:1], model(x[:1]))  # no image depends on another
    assert [name for name in layers.names(model) if name.startswith("bn")] == ["bn1", "bn2", "bn3"]
