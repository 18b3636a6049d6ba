"""The dial: networks between two norm branches, and where there are any."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arat_ray.training import checkpoint
from arat_ray.training.dial import DialRange, dialled, domain
from arat_ray.training.models import MODELS
from arat_ray.training.split_norm import SplitNorm, branch, convert
from tests.training.export.exports import ARAT, untrained
from tests.training.test_split_norm import grouped, images, plain, split

KINDS = [*MODELS, "group"]


def network(kind: str) -> nn.Module:
    """A split network with branches that differ, in eval mode."""
    model = convert(grouped()) if kind == "group" else split(kind)
    with torch.no_grad():
        for module in model.modules():
            if kind == "group" and isinstance(module, SplitNorm):
                for value in module.clean.parameters():
                    value.add_(torch.rand_like(value))
    return model.eval()


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def batch_norm(adversarial: list[float], clean: list[float]) -> nn.Module:
    """A split batch norm with such running variances, the rest of it equal in both branches."""
    norm = SplitNorm(nn.BatchNorm2d(len(clean)))
    for side, values in ((norm.adversarial, adversarial), (norm.clean, clean)):
        side.get_buffer("running_var").copy_(torch.tensor(values))
    return nn.Sequential(norm)


def range_of(model: nn.Module) -> DialRange:
    found = domain(model.state_dict())
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_the_dial_are_the_branches_bit_for_bit(kind: str) -> None:
    model = network(kind)
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if ".adversarial.bias" in name)[0] = -0.0
    x = images()
    for t, name in ((0, "adversarial"), (1, "clean")):
        ended = dialled(model, t)
        with branch(model, name):  # type: ignore[arg-type]
            assert torch.equal(ended(x), model(x))
        numbers = {key.replace(f".{name}.", "."): raw for key, raw in bits(model).items() if f".{name}." in key}
        assert numbers.items() <= bits(ended).items(), "the sign of a zero, too"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [0.25, 0.9, -0.1])
def test_every_number_of_a_norm_layer_is_between_the_branches_and_nothing_else_moves(kind: str, t: float) -> None:
    model = network(kind)
    before = bits(model)
    weights = dialled(model, t).state_dict()
    for name, value in model.state_dict().items():
        if ".adversarial." in name and value.is_floating_point():
            clean = model.state_dict()[name.replace(".adversarial.", ".clean.")]
            torch.testing.assert_close(weights[name.replace(".adversarial.", ".")], (1 - t) * value + t * clean)
        elif ".adversarial." not in name and ".clean." not in name:
            assert torch.equal(weights[name], value)
    assert bits(model) == before, "the split network stays as it is"


def test_the_dialled_network_is_a_plain_one_of_the_same_architecture() -> None:
    model, same = network("tiny"), plain("tiny").eval()
    halfway = dialled(model, 0.5)
    assert repr(halfway) == repr(same)
    same.load_state_dict(halfway.state_dict())
    assert torch.equal(same(images()), halfway(images()))


def test_the_domain_of_three_variances_by_hand() -> None:
    # 1 + t is above zero from -1 on, 4 - 3 t below 4/3, and the third is 2 everywhere
    found = range_of(batch_norm([1, 4, 2], [2, 1, 2]))
    assert found.low == -1
    assert found.high == pytest.approx(4 / 3)
    assert [t in found for t in (-1, -0.999, 0, 1, 1.333, 1.334)] == [False, True, True, True, True, False]
    assert f"{found}" == "above -1 and below 1.33333"


def test_a_variance_of_zero_in_both_branches_bounds_nothing_and_in_one_its_own_end() -> None:
    assert range_of(batch_norm([0, 1], [0, 1])) == DialRange(-math.inf, math.inf)
    dies, wakes = range_of(batch_norm([1], [0])), range_of(batch_norm([0], [1]))
    assert [t in dies for t in (1, 1.000001)] == [True, False]
    assert f"{dies}".endswith(" and up to 1")
    assert [t in wakes for t in (-1e-9, 0)] == [False, True]
    assert f"{wakes}".startswith("from 0 and ")


@pytest.mark.parametrize("kind", ["vit", "group"])
def test_without_statistics_only_the_largest_number_bounds_the_dial(kind: str) -> None:
    model = network(kind).float()
    found = range_of(model)
    assert found.low < -1e30
    assert found.high > 1e30
    far = dialled(model, found.high * 0.999)
    assert all(value.isfinite().all() for value in far.state_dict().values())
    with pytest.raises(ValueError, match=r"the network is defined above -.* and below "):
        dialled(model, found.high * 1.001)


@pytest.mark.parametrize("t", [-1.0, 1.5, math.nan, math.inf])
def test_a_setting_beyond_the_domain_is_refused_with_the_domain(t: float) -> None:
    with pytest.raises(ValueError, match=r"^dial \S+: the network is defined above -1 and below 1\.33333$"):
        dialled(batch_norm([1, 4], [2, 1]), t)


def test_a_network_of_one_branch_has_no_dial() -> None:
    assert domain(plain().state_dict()) is None
    with pytest.raises(ValueError, match="dial 0: the network has no clean branch"):
        dialled(plain(), 0)


@pytest.mark.parametrize("average", [{"name": "swa", "start": 0.0}, {"name": "ema"}])
def test_of_a_run_that_averaged_the_average_is_dialled_unless_the_raw_weights_are_asked_for(
    average: dict[str, Any], tmp_path: Path
) -> None:
    state = untrained(tmp_path / "last.pt", averaging=average)
    assert state.average is not None
    for averaged, weights in ((True, state.average["method"]), (False, state.method)):
        name = next(name for name in weights if name.endswith("adversarial.running_var"))
        middle = checkpoint.network(state, averaged=averaged, dial=0.5).state_dict()
        clean: Tensor = weights[name.replace("adversarial", "clean")]
        plain_name = name.removeprefix("model.").replace("adversarial.", "")
        torch.testing.assert_close(middle[plain_name], (weights[name] + clean) / 2)
        assert checkpoint.dial_range(state, averaged=averaged) == domain(weights)


def test_the_domain_of_a_checkpoint_is_that_of_its_network(tmp_path: Path) -> None:
    state = untrained(tmp_path / "last.pt", method=ARAT)
    method = state.train_spec.build()
    method.load_state_dict(copy.deepcopy(state.method))
    assert checkpoint.dial_range(state) == domain(method.model.state_dict()) != DialRange(-math.inf, math.inf)
    assert checkpoint.dial_range(untrained(tmp_path / "one.pt", method=ARAT | {"split_norm": False})) is None
