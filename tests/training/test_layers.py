"""Layer names by pattern, and the pooled features of the layers named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arat_ray.training import layers
from arat_ray.training.models import Resnet18, Tiny, Vit, WideResnet
from arat_ray.training.split_norm import convert


def resnet() -> nn.Module:
    with torch.device("meta"):
        return Resnet18(width=1).build((3, 32, 32), 10)


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return Tiny(width=3).build((1, 8, 8), 4).double()


def images() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(5, 1, 8, 8, dtype=torch.float64)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


# names and patterns


def test_names_are_in_the_networks_order_with_containers_before_what_they_hold() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU(), nn.Linear(1, 1)))
    assert layers.names(model) == ["0", "1", "1.0", "1.1"]


def test_a_split_norm_is_one_module() -> None:
    plain = layers.names(Tiny().build((1, 8, 8), 10))
    assert "bn1" in plain
    assert layers.names(convert(Tiny().build((1, 8, 8), 10))) == plain
    assert layers.names(convert(resnet())) == layers.names(resnet())


def test_a_star_or_question_mark_never_crosses_a_dot() -> None:
    assert layers.select(resnet(), ["layer?"]) == ["layer1", "layer2", "layer3", "layer4"]
    assert layers.select(resnet(), ["layer4.*"]) == ["layer4.0", "layer4.1"]
    assert layers.select(resnet(), ["*"]) == [name for name in layers.names(resnet()) if "." not in name]
    assert layers.select(resnet(), ["*.*.bn2"]) == [f"layer{i}.{j}.bn2" for i in range(1, 5) for j in range(2)]
    for crossing in ("layer4*bn1", "layer4.?bn1", "*bn2"):
        with pytest.raises(ValueError, match="matches no layer"):
            layers.select(resnet(), [crossing])


def test_selected_names_come_once_each_and_in_the_networks_order() -> None:
    patterns = ["avgpool", "layer4.1.bn?", "layer4.*.bn2", "bn1"]
    expected = ["bn1", "layer4.0.bn2", "layer4.1.bn1", "layer4.1.bn2", "avgpool"]
    assert layers.select(resnet(), patterns) == expected
    assert layers.select(resnet(), patterns[::-1]) == expected


def test_upper_case_is_another_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'avgpool'"):
        layers.select(resnet(), ["Avgpool"])


def test_an_unknown_layer_is_answered_with_the_nearest_name_and_all_names() -> None:
    with pytest.raises(ValueError, match="matches no layer") as caught:
        layers.select(Tiny().build((1, 8, 8), 10), ["bn1", "av_pool"])
    assert str(caught.value) == (
        "layer pattern 'av_pool' matches no layer of this model; did you mean 'avgpool'?; "
        "its layers: conv1, bn1, conv2, bn2, conv3, bn3, avgpool, linear"
    )


def test_of_a_deep_network_one_block_a_stage_is_shown() -> None:
    with torch.device("meta"):
        model = WideResnet(depth=34, width=1).build((3, 32, 32), 10)
    with pytest.raises(ValueError, match=r"block3\.layer\.0\.relu1") as caught:
        layers.select(model, ["block4.layer.*.relu1"])
    assert "block3.layer.1" not in str(caught.value)


# features


def test_a_feature_is_the_mean_over_positions_of_what_is_positive() -> None:
    output = torch.tensor([[[[1.0, -2.0], [3.0, 0.0]], [[-1.0, -1.0], [-1.0, -1.0]]]])
    assert torch.equal(layers.pool(output), torch.tensor([[1.0, 0.0]]))
    assert torch.equal(layers.pool(output[:, :, 0]), torch.tensor([[0.5, 0.0]]))  # tokens [N, T, C]
    assert torch.equal(layers.pool(output[:, 0, :, 0]), torch.tensor([[1.0, 3.0]]))
    assert torch.equal(layers.pool(torch.tensor([[-1.0, 2.0]])), torch.tensor([[0.0, 2.0]]))


@pytest.mark.parametrize("split", [False, True])
def test_captured_features_are_those_of_the_layers_own_output(split: bool) -> None:
    model = (convert(tiny()) if split else tiny()).eval()
    with layers.capture(model, ["bn2", "avgpool"]) as features:
        logits = model(images())
    modules = dict(model.named_modules())
    hidden = torch.relu(modules["bn1"](modules["conv1"](images())))
    second = modules["bn2"](modules["conv2"](hidden))
    third = torch.relu(modules["bn3"](modules["conv3"](torch.relu(second))))
    assert set(features) == {"bn2", "avgpool"}
    torch.testing.assert_close(features["bn2"], second.clamp(min=0).sum((2, 3)) / 16)
    torch.testing.assert_close(features["avgpool"], third.sum((2, 3)) / 4)
    assert torch.equal(logits, model(images()))


def test_gradients_flow_through_captured_features() -> None:
    model = tiny().eval()
    x = images().requires_grad_()
    with layers.capture(model, ["bn1"]) as features:
        model(x)
    (gradient,) = torch.autograd.grad(features["bn1"].sum(), x)
    assert gradient.abs().sum() > 0


def test_no_hook_is_left_behind_not_even_by_an_exception_or_an_unknown_layer() -> None:
    model = tiny()
    with layers.capture(model, ["bn1", "bn2"]) as features:
        assert hooks(model) == 2
        model(images())
    assert hooks(model) == 0
    captured = dict(features)
    model(images() + 1)
    assert all(features[name] is value for name, value in captured.items())

    with pytest.raises(KeyboardInterrupt), layers.capture(model, ["bn1"]):
        raise KeyboardInterrupt
    assert hooks(model) == 0
    with pytest.raises(KeyError), layers.capture(model, ["bn1", "absent"]):
        pass
    assert hooks(model) == 0


# what each layer gives


class Odd(nn.Module):
    """Modules that give no feature, and one that takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.LSTM(4, 3)
        self.whole = nn.Flatten(0)
        self.idle = nn.Linear(2, 2)
        self.volume = nn.Unflatten(0, (2, 1, 2, 2, 4))
        self.linear = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.pair(x.flatten(1)[:, :4])
        volume: Tensor = self.volume(self.whole(x))
        logits: Tensor = self.linear(volume.flatten(1))
        return logits


def test_a_survey_tells_the_output_for_an_image_and_the_width_of_its_feature() -> None:
    surveyed = {layer.name: layer for layer in layers.survey(Tiny(width=3).build((1, 8, 8), 4), (1, 8, 8))}
    assert list(surveyed) == layers.names(Tiny().build((1, 8, 8), 4))
    assert surveyed["conv2"] == ("conv2", "Conv2d", (6, 4, 4), 6)
    assert surveyed["avgpool"] == ("avgpool", "AdaptiveAvgPool2d", (12, 1, 1), 12)
    assert surveyed["linear"] == ("linear", "Linear", (4,), 4)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("spec", [Tiny(width=3), Vit(patch=2, width=6, depth=1, heads=2), Resnet18(width=1)])
def test_widths_are_those_of_captured_features(spec: Tiny | Vit | Resnet18, split: bool) -> None:
    model = spec.build((1, 8, 8), 4)
    model = (convert(model) if split else model).train()
    known = layers.names(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = layers.widths(model, known, (1, 8, 8))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert hooks(model) == 0
    with layers.capture(model, known) as features:
        model(torch.rand(5, 1, 8, 8))
    assert {name: tuple(feature.shape) for name, feature in features.items()} == {
        name: (5, width) for name, width in zip(known, found, strict=True)
    }


def test_tokens_are_pooled_over_positions() -> None:
    torch.manual_seed(0)
    model = Vit(patch=2, width=6, depth=1, heads=2).build((1, 8, 8), 4).double().eval()
    outputs: list[Tensor] = []
    model.get_submodule("blocks.0.mlp").register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with layers.capture(model, ["blocks.0.mlp"]) as features:
        model(images())
    assert outputs[0].shape == (5, 16, 6)
    torch.testing.assert_close(features["blocks.0.mlp"], outputs[0].clamp(min=0).sum(1) / 16)


def test_a_survey_needs_no_memory() -> None:
    with torch.device("meta"):
        model = WideResnet().build((3, 32, 32), 10)
    assert layers.widths(model, ["block3.layer.0.relu1", "avgpool"], (3, 32, 32)) == [320, 640]


@pytest.mark.parametrize(
    ("name", "gives"),
    [
        ("pair", r"'pair' \(LSTM\) gives no tensor"),
        ("idle", r"'idle' \(Linear\) gives no tensor"),
        ("whole", r"'whole' \(Flatten\) gives \[\] for an image"),
        ("volume", r"'volume' \(Unflatten\) gives \[1, 2, 2, 4\] for an image"),
    ],
)
def test_a_layer_without_a_feature_is_refused_by_name(name: str, gives: str) -> None:
    shape = (1, 4, 4)
    surveyed = {layer.name: layer.width for layer in layers.survey(Odd(), shape)}
    assert surveyed == {"pair": None, "whole": None, "idle": None, "volume": None, "linear": 2}
    assert layers.widths(Odd(), ["linear"], shape) == [2]
    with pytest.raises(ValueError, match=rf"layer {gives} and cannot be regularised; choose one that gives"):
        layers.widths(Odd(), [name], shape)


SMALL = [Tiny(width=3), Resnet18(width=4), WideResnet(depth=10, width=1), Vit(width=12, depth=2)]


@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: spec.name)
def test_a_network_without_values_is_surveyed_as_one_with_values(spec: Any) -> None:
    shape = (3, 16, 16)
    with torch.device("meta"):
        without = spec.build(shape, 10)
    assert layers.survey(without, shape) == layers.survey(spec.build(shape, 10), shape)
    assert all(parameter.is_meta for parameter in without.parameters())
