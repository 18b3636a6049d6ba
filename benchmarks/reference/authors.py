"""The authors' side: their modules, see `checkout.load`, run unchanged, on the CPU unless told otherwise.

`train_one_epoch` of their `train_ARAT.py` takes the steps, with their attack, networks, feature hooks and losses. Two
things are done to it from outside: `.cuda()` stays on the CPU; and `tqdm` and `sum` are other ones there, to be quiet
and to hear the terms of the loss. Their ResNet has one width; another one is built of their blocks by their
`_make_layer`.
"""

from __future__ import annotations

import copy
import io
import math
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from arat_ray.training.attacks import Pgd
from arat_ray.training.methods import AratSpec
from arat_ray.training.models import Resnet18, WideResnet
from arat_ray.training.optimizers import Sgd
from arat_ray.training.run import Train
from reference.records import Batch, Record, state

CPU = torch.device("cpu")
BRANCHES = ["clean", "adv"]
SCRIPTS: Mapping[str, Any] = {
    "attack_norm": "inf",
    "is_auto_balance_ce_loss": True,
    "auto_bal_prev_acc_weight": 1.0,
    "ce_loss_fxx_y_weight": 1.0,
    "ce_loss_gx_y_weight": 1.0,
    "feat_align_loss_metric": "cos-sim",
    "is_use_predictor_xx": True,
    "is_use_predictor_x": False,
    "pred_dim_ratio": 0.25,
    "align_type": "x->y",
    "is_swa": False,
    "swa_start": 0,
    "swa_decay": "n",
    "swa_freq": 1,
    "swa_n": 0,
}
"""The options of their `scripts/ARAT`, as far as a step reads them; averaging, where it is on, after every step."""


class Authors:
    """Their network, predictors, attack and optimiser for a run of this project's, from its weights `start`.

    `parts` are all their parameters and buffers, live, by this project's names. `options` go before their scripts'.
    """

    def __init__(
        self,
        code: SimpleNamespace,
        train: Train,
        start: Mapping[str, Tensor],
        layers: Sequence[str],
        options: Mapping[str, Any],
    ) -> None:
        method, optimizer, attack = train.method, train.optimizer, train.attack
        assert isinstance(method, AratSpec)
        assert isinstance(optimizer, Sgd)
        assert isinstance(attack, Pgd)
        given = {"align_layers": list(layers), "align_features_weight": method.invariance_weight}
        self.code, self.options = code, Namespace(**{**SCRIPTS, **given, **options})
        with redirect_stdout(io.StringIO()):
            self.net = code.features.FeatureExtractorSplitBN(
                _network(code, train.model), list(layers), is_avg_pool=True, is_relu=True, bn_names=BRANCHES
            )
        self.losses = self._losses()
        for module in (self.net, *self.losses.values()):
            module.to(next(iter(start.values())).dtype)
        live = self._live()
        self.parts = {name: live[their_name(name)] for name in start}
        assert len(self.parts) == len(live), f"parts of theirs without a counterpart: {set(live)}"
        with torch.no_grad():
            for name, value in self.parts.items():
                value.copy_(start[name])
        trained = [value for value in self.parts.values() if isinstance(value, nn.Parameter)]
        self.optimizer = torch.optim.SGD(
            trained, optimizer.learning_rate, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay
        )
        self.adversary = code.attacks.PGD_linf(attack.epsilon, attack.steps, attack.step_size)
        self.average = copy.deepcopy(self.net)
        self.balance = math.nan
        self.device = CPU

    def to(self, device: torch.device) -> None:
        """Take further steps on another device; `parts` keeps no norm statistics then."""
        for module in (self.net, self.average, *self.losses.values()):
            module.to(device)
        self.device = device

    def measure_balance(self, batches: Sequence[Batch]) -> None:
        """Their accuracy of the clean branch, from which the weights of an epoch follow."""
        with patch.object(Tensor, "cuda", lambda tensor: tensor):
            _, self.balance = self.code.train.test_single_bn(self.net, batches, bn_name="clean")

    def epoch(self, batches: Sequence[Batch]) -> None:
        """Their `train_one_epoch`, which also writes into the images."""
        with redirect_stdout(io.StringIO()), patch.object(self.code.train, "tqdm", lambda batches, total: batches):
            given = (self.options, 1, self.net, batches, self.optimizer, self.adversary, self.losses)
            self.code.train.train_one_epoch(*given, self.balance, self.device, net_swa=self.average)

    def run(self, batches: Sequence[Batch], *, noise_seed: int) -> list[Record]:
        """As `ours.run`: a step on each batch; what each computed and left behind."""
        record: Record = {}
        records = list[Record]()
        self._listen(record)
        self.options.is_swa = True
        self.measure_balance(batches)
        torch.manual_seed(noise_seed)
        for x, y in batches:
            record.clear()
            if self.options.is_auto_balance_ce_loss:
                record["accuracy for the balance"] = {"": torch.tensor(self.balance, dtype=torch.float64)}
            with patch.object(self.code.train, "sum", partial(_heard, record, self.options), create=True):
                self.epoch([(x.clone(), y)])
            averages = dict(self.average.named_parameters(prefix="net"))
            averaged = {name: averages[their_name(name)].clone() for name in self.parts if their_name(name) in averages}
            records.append({**record, **state(self.parts, self.optimizer), "average of the weights": averaged})
        return records

    def _losses(self) -> dict[str, Any]:
        """Their predictors and distances, as their `main()` makes them."""
        options = self.options
        with torch.no_grad():
            _, features = self.net(torch.zeros(1, 3, 32, 32), get_feat=True, bn_name=BRANCHES[0])
        return {
            layer: self.code.loss.AlignLoss(
                options,
                loss_metric=options.feat_align_loss_metric,
                is_use_predictor_x=options.is_use_predictor_xx,
                is_use_predictor_y=options.is_use_predictor_x,
                feat_dim=features[layer].shape[1],
                hidden_dim=int(features[layer].shape[1] * options.pred_dim_ratio),
                align_type=options.align_type,
            )
            for layer in options.align_layers
        }

    def _live(self) -> dict[str, Tensor]:
        """Their parameters and buffers: `net.` and the name in the network, `predictors.`, a number and the name."""
        found = {f"net.{name}": value for name, value in self.net.state_dict(keep_vars=True).items()}
        for number, module in enumerate(self.losses.values()):
            for predictor in module.children():
                state_dict = predictor.state_dict(keep_vars=True)
                found |= {f"predictors.{number}.{name}": value for name, value in state_dict.items()}
        return found

    def _listen(self, record: Record) -> None:
        def computed(_net: nn.Module, inputs: tuple[Tensor], keywords: dict[str, Any], outputs: Any) -> None:
            if keywords.get("get_feat"):
                logits, features = outputs
                branch = "adversarial" if keywords["bn_name"] == "adv" else "clean"
                images = "adversarial images" if branch == "adversarial" else "clean input"
                record[images] = {"": inputs[0].detach().clone()}
                record.setdefault("logits", {})[branch] = logits.detach()
                record[f"features, {branch}"] = {layer: value.detach() for layer, value in features.items()}

        def predicted(layer: str, _predictor: nn.Module, _inputs: object, output: Tensor) -> None:
            record.setdefault("predictions", {})[layer] = output.detach()

        self.net.register_forward_hook(computed, with_kwargs=True)
        for layer, module in self.losses.items():
            for predictor in module.children():
                predictor.register_forward_hook(partial(predicted, layer))


def _heard(record: Record, options: Namespace, terms: Iterable[Tensor]) -> Tensor:
    """Python's sum, of the terms of their loss: two cross-entropies, then the layers', all of them weighted."""
    adversarial, clean, *invariance = terms
    total: Tensor = sum([clean, *invariance], adversarial)
    record["loss, adversarial cross-entropy"] = {"": adversarial.detach()}
    record["loss, clean cross-entropy"] = {"": clean.detach()}
    record["loss, invariance"] = {
        layer: term.detach() for layer, term in zip(options.align_layers, invariance, strict=True)
    }
    record["loss, total"] = {"": total.detach()}
    return total


def _network(code: SimpleNamespace, model: object) -> nn.Module:
    """Their network for 32x32 images and ten classes."""
    if isinstance(model, WideResnet):
        wide: nn.Module = code.wrn.WideResNet(model.depth, 10, model.width, bn_names=BRANCHES)
        return wide
    assert isinstance(model, Resnet18)
    block, width = code.resnet.BasicBlock, model.width
    net: Any = code.resnet.ResNet(block, [2, 2, 2, 2], 10, bn_names=BRANCHES)
    if width != 64:
        net.in_planes = width
        net.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        net.bn1 = nn.ModuleDict({name: nn.BatchNorm2d(width) for name in BRANCHES})
        for number, stride in enumerate((1, 2, 2, 2)):
            stage = net._make_layer(block, width * 2**number, 2, stride=stride, bn_names=BRANCHES)
            setattr(net, f"layer{number + 1}", stage)
        net.linear = nn.Linear(8 * width, 10)
    resnet: nn.Module = net
    return resnet


def their_name(name: str) -> str:
    """`model.layer2.0.shortcut.1.adversarial.weight` is `net.layer2.0.shortcut_bn.adv.weight` there."""
    if name.startswith("predictors."):
        return name
    theirs = name.replace("model.", "net.", 1).replace(".adversarial.", ".adv.")
    theirs = theirs.replace(".shortcut.0.", ".shortcut.").replace(".shortcut.1.", ".shortcut_bn.")
    return theirs.replace(".shortcut.", ".convShortcut.") if theirs.startswith("net.block") else theirs
