"""Layer names by pattern, and the pooled features of the layers named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from arat_ray.training import layers
from arat_ray.training.branches import convert
from arat_ray.training.models import Resnet18, Tiny, WideResnet


def resnet() -> nn.Module:
    with torch.device("meta"):
        return Resnet18(width=1).build(3, 10)


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return Tiny(width=3).build(1, 4).double()


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
    plain = layers.names(Tiny().build(1, 10))
    assert "bn1" in plain
    assert layers.names(convert(Tiny().build(1, 10))) == plain
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
        layers.select(Tiny().build(1, 10), ["bn1", "av_pool"])
    assert str(caught.value) == (
        "layer pattern 'av_pool' matches no layer of this model; did you mean 'avgpool'?; "
        "its layers: conv1, bn1, conv2, bn2, conv3, bn3, avgpool, linear"
    )


def test_of_a_deep_network_one_block_a_stage_is_shown() -> None:
    with torch.device("meta"):
        model = WideResnet(depth=34, width=1).build(3, 10)
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
