"""`import arat_ray`: what it loads, what it offers, and that it says the same as the command line."""

from __future__ import annotations

import ast
import inspect
import json
import logging
import pydoc
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import arat_ray
from arat_ray import Digits, Experiment, ImageSet, Pgd, StandardSpec, Study, Tiny, Train, Validate
from arat_ray.api.files import load_experiment, text_of
from arat_ray.api.inputs import as_path, in_python
from arat_ray.cli import main
from arat_ray.storage.address import Mirrored
from arat_ray.study.single import NotSavedError
from arat_ray.training import checkpoint

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "ray", "pyarrow", "pydantic", "optuna", "matplotlib", "numpy", "click", "yaml", "rich")
SEARCH = ROOT / "search_spaces" / "quickstart.yaml"
CALLS = ("load_experiment", "train", "tune", "evaluate", "load_front", "plot_front", "read", "Study")
ATTACK = Pgd(norm="linf", epsilon=0.1, step_size=0.05, steps=2)
FORKS = """
import threading, time
from arat_ray.cluster.ray_internals import psutil

forks = set()

def look():
    while True:
        time.sleep(0.1)
        for child in psutil.Process().children():
            try:
                if "serve_alone" in " ".join(child.cmdline()):
                    forks.update(each.pid for each in child.children() if "ray::" in " ".join(each.cmdline()))
            except psutil.NoSuchProcess:
                pass

threading.Thread(target=look, daemon=True).start()
"""
"""Before a program: `forks` are the workers that its fork server, a program of its own, was seen to have."""
NO_RAY = "import sys\nsys.modules['ray'] = None\n"


def python(program: str, folder: Path = ROOT) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def small(**more: Any) -> Experiment:
    train = Train(
        dataset=Digits(images=100),
        model=Tiny(width=4),
        method=StandardSpec(),
        attack=ATTACK,
        epochs=1,
        batch_size=20,
        seed=0,
    )
    return Experiment(name="small", train=train, validate=Validate(every=1, images=40, attack=ATTACK), **more)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return arat_ray.train(small(), results=tmp_path_factory.mktemp("runs"))


def test_importing_loads_nothing_heavy() -> None:
    loaded = f"import sys, arat_ray\ndir(arat_ray)\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    assert python(loaded) == "\n"


@pytest.mark.parametrize("name", ["load_front", "read", "Study"])
def test_tables_and_fronts_load_neither_torch_nor_ray(name: str) -> None:
    loaded = (
        f"import sys, arat_ray\narat_ray.{name}\nprint(*(m for m in ('torch', 'ray', 'pandas') if m in sys.modules))"
    )
    assert python(loaded) == "\n"


def test_every_name_resolves_without_ray() -> None:
    program = NO_RAY + "import arat_ray\nprint(all(getattr(arat_ray, name) for name in arat_ray.__all__))"
    assert python(program) == "True\n"


def test_the_names_for_types_are_those_that_resolve() -> None:
    tree = ast.parse((ROOT / "arat_ray" / "__init__.py").read_text())
    typed = {
        alias.name: str(node.module).removeprefix("arat_ray.")
        for each in tree.body
        if isinstance(each, ast.If)
        for node in each.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == arat_ray._HOME_OF
    assert sorted(typed) == arat_ray.__all__
    assert set(arat_ray.__all__) <= set(dir(arat_ray))


@pytest.mark.parametrize("name", CALLS)
def test_what_is_called_has_an_example_in_its_docstring(name: str) -> None:
    text = inspect.getdoc(getattr(arat_ray, name)) or ""
    assert "Example:" in text
    assert f"arat_ray.{name}(" in text


def test_help_shows_the_calls_with_their_arguments() -> None:
    text = pydoc.plain(pydoc.render_doc(arat_ray))
    assert "import arat_ray" in text
    for call in ("tune(experiment:", "load_front(*studies:", "evaluate(target:", "class Study("):
        assert call in text


def test_a_name_that_does_not_exist_is_named_with_the_one_that_was_meant() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'load_frnt'; did you mean 'load_front'\?"):
        _ = getattr(arat_ray, "load_frnt")  # noqa: B009


def blocks() -> list[tuple[str, str]]:
    """Of the program in the documentation: the mark before each block that starts Ray, and the block."""
    text = (ROOT / "docs" / "python.md").read_text()
    return re.findall(r"(<!-- starts Ray -->\n)?```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Where the program in the documentation ran, without Ray but for its search, and what it printed."""
    folder = tmp_path_factory.mktemp("documented")
    program = "\n".join(block for starts, block in blocks() if not starts)
    return folder, python(NO_RAY + program, folder).splitlines()


def test_the_program_in_the_documentation_runs_without_ray_but_for_its_search(
    documented: tuple[Path, list[str]],
) -> None:
    folder, lines = documented
    assert lines[0] == "runs/trades/checkpoints/trades-00000/last.pt"
    assert re.fullmatch(r"clean [\d.]+%, robust [\d.]+% of 360 images", lines[1])
    assert (folder / "front.png").stat().st_size > 10_000
    assert "'weight'" in lines[-1]


@pytest.mark.ray
def test_the_search_in_the_documentation_runs_after_the_first_run(documented: tuple[Path, list[str]]) -> None:
    (_, run), *others = blocks()
    (search,) = (block for starts, block in others if starts)
    output = python(f"{FORKS}{run}\n{search}\nprint('workers are forks:', bool(forks))", documented[0])
    assert output.endswith(f"workers are forks: {sys.platform == 'linux'}\n")
    assert "Ended(stopped=None, failed=0)" in output
    assert "method.beta" in output


def test_the_cells_of_the_notebook_run(tmp_path: Path) -> None:
    cells = json.loads((ROOT / "docs" / "python.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in cells)
    program = "\n".join(
        line for cell in code for line in cell.splitlines() if not line.startswith("%")
    )  # Jupyter's own
    assert python(NO_RAY + program, tmp_path).count("robust") >= 2
    assert (tmp_path / "front.png").exists()


@pytest.mark.parametrize("file", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda file: file.stem)
def test_an_experiment_as_a_file_says_the_same(file: Path, tmp_path: Path) -> None:
    experiment = load_experiment(file)
    (tmp_path / "again.yaml").write_text(text_of(experiment))
    assert load_experiment(str(tmp_path / "again.yaml")) == experiment


def test_labels_that_are_integers_stay_integers_in_a_file(tmp_path: Path) -> None:
    knobs = {
        "model.width": {"choice": {1: 2, 2: 4}},
        "optimizer.learning_rate": {"loguniform": [0.01, 1], "when": {"model.width": 2}},
    }
    first = [{"model.width": 2, "optimizer.learning_rate": 0.1}]
    given = small().model_dump(mode="json", by_alias=True) | {"sampler": {"name": "random"}, "budget": {"trials": 2}}
    experiment = Experiment.model_validate(given | {"search": knobs, "first": first})
    (tmp_path / "again.yaml").write_text(text_of(experiment))
    assert load_experiment(str(tmp_path / "again.yaml")) == experiment


def test_a_run_that_is_complete_is_the_same_to_the_command_line(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.yaml").write_text(text_of(small()))
    main(["train", f"{tmp_path}/small.yaml", "--results", f"{study.path.parent}"], standalone_mode=False)
    assert "is complete already" in capsys.readouterr().out
    assert arat_ray.train(f"{tmp_path}/small.yaml", results=f"{study.path.parent}").checkpoint == study.checkpoint


def test_nothing_is_printed_unless_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    with caplog.at_level(logging.INFO, logger="arat_ray"):
        arat_ray.train(small(), results=tmp_path / "quiet")
    assert any(record.getMessage().startswith("epoch 1/1: loss") for record in caplog.records)
    assert capfd.readouterr().out == ""
    arat_ray.train(small(), results=tmp_path / "shown", progress=True)
    assert "epoch 1/1: loss" in capfd.readouterr().out
    assert torch.get_num_threads() == threads


def test_a_network_in_memory_gets_the_report_of_its_checkpoint(study: Study) -> None:
    how: dict[str, Any] = {"attack": "apgd", "epsilon": "8/255", "images": 30, "batch_size": 16, "mode": "fast"}
    of_file = arat_ray.evaluate(str(study.checkpoint), split="test", **how)
    network = checkpoint.network(checkpoint.load(study.checkpoint)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    of_network = arat_ray.evaluate(network, data=Digits(images=100), split="test", **how)
    for name in ("clean", "robust"):
        assert getattr(of_file, name).correct == getattr(of_network, name).correct
    assert of_file.examples.broken_by == of_network.examples.broken_by
    assert torch.equal(of_file.examples.margins, of_network.examples.margins)
    assert of_file.indices_sha256 == of_network.indices_sha256
    assert (of_network.checkpoint, of_network.split, of_network.subset) == (None, "test", "stratified")
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_checkpoint_is_added_to_its_study_and_a_network_to_none(study: Study) -> None:
    report = arat_ray.evaluate(study.checkpoint, split="test", attack=ATTACK, images=10)
    assert report.evaluation_id(report.robust) in study.read("evaluations")["evaluation_id"].to_pylist()
    (same,) = study.evaluate(split="test", attack="pgd", steps=2, step_size=0.05, epsilon=0.1, images=10)
    assert same.key == report.key
    (trial,) = study.front(attack="pgd-2", split="test", images=10).trials
    assert trial["robust_accuracy"] == report.robust.accuracy


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, np.ndarray, ImageSet])
def test_images_come_as_tensors_arrays_or_image_sets(kind: Any) -> None:
    x, y, names = Digits().read("test")
    given: Any = (x[:20], y[:20])
    if kind is torch.float32:
        given = (x[:20].float() / 255, y[:20])
    if kind is np.ndarray:
        given = (x[:20].numpy(), y[:20].numpy().astype(np.int32))
    if kind is ImageSet:
        given = ImageSet(x[:20], y[:20], names)
    torch.manual_seed(0)
    report = arat_ray.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), data=given, attack="fgsm", epsilon=0.1)
    torch.manual_seed(0)
    same = arat_ray.evaluate(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), data=(x[:20], y[:20]), attack="fgsm", epsilon=0.1
    )
    assert report.examples.broken_by == same.examples.broken_by
    assert report.robust.images == 20


class Grey(nn.Module):
    """Two classes, without a parameter: is the image bright?"""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = x.mean((1, 2, 3)) - 0.5
        return torch.stack([-bright, bright], 1)


def test_robust_accuracy_of_a_network_worked_by_hand() -> None:
    levels = torch.tensor([0.1, 0.38, 0.45, 0.62, 0.9])
    x, y = levels[:, None, None, None].expand(5, 1, 8, 8).clone(), (levels > 0.5).long()
    y[4] = 0  # wrong without an attack
    report = arat_ray.evaluate(Grey(), data=(x, y), attack="pgd", epsilon=0.1)
    assert (report.clean.correct, report.robust.correct) == (4, 3)  # only 0.45 is within 0.1 of 0.5
    assert report.examples.broken_by == [None, None, "pgd-20", None, None]
    assert report.examples.clean_correct.tolist() == [True, True, True, True, False]


def test_finished_batches_are_kept_where_a_folder_is_named(tmp_path: Path) -> None:
    data = (torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 0, 1, 0, 1]))
    how: dict[str, Any] = {"data": data, "attack": "fgsm", "epsilon": 0.1, "batch_size": 4}
    report = arat_ray.evaluate(Grey(), records=f"{tmp_path}/kept", **how)
    assert (tmp_path / "kept" / f"fgsm-{report.key}" / "identity.json").exists()
    assert arat_ray.evaluate(Grey(), **how).key == report.key


def measured(study: Study, **how: Any) -> Any:
    """The checkpoint of a study under arguments that a type checker would refuse."""
    call: Any = arat_ray.evaluate
    return call(study.checkpoint, **{"split": "test", "attack": ATTACK} | how)


def test_errors_say_what_to_do_in_the_words_of_python(study: Study, tmp_path: Path) -> None:
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
    net, other = Grey(), small(maximize=["clean_accuracy"])
    how: dict[str, Any] = {"attack": "pgd", "epsilon": 0.1}
    cases: list[tuple[str, Any]] = [
        (r"^epsilon is missing: the radius in pixel units", lambda: arat_ray.evaluate(net, data=(x, y), attack="pgd")),
        (r"^attack: no attack 'pdg'; did you mean 'pgd'", lambda: arat_ray.evaluate(net, data=(x, y), attack="pdg")),
        (r"split=None: which images", lambda: arat_ray.evaluate(net, data=Digits(), **how)),
        (r"split='test' is for a data set spec", lambda: arat_ray.evaluate(net, data=(x, y), split="test", **how)),
        (r"images leave \[0, 1\]", lambda: arat_ray.evaluate(net, data=(2 * x, y), **how)),
        (r"x \[4, 1, 8, 8\] and y \[3\] must be", lambda: arat_ray.evaluate(net, data=(x, y[:3]), **how)),
        (r"y is torch.float32; give the number", lambda: arat_ray.evaluate(net, data=(x, y.float()), **how)),
        (r"labels go from 2 to 3, and the network has 2", lambda: arat_ray.evaluate(net, data=(x, y + 2), **how)),
        (r"must give logits float32 \[N, K\]", lambda: arat_ray.evaluate(nn.Identity(), data=(x, y), **how)),
        (r"5 images of 4; choose 1 to 4", lambda: arat_ray.evaluate(net, data=(x, y), images=5, **how)),
        (r"says its radius and steps itself", lambda: arat_ray.evaluate(net, data=(x, y), attack=ATTACK, epsilon=0.1)),
        (r"^split: must be 'train', 'validation' or 'test', not 'tset'", lambda: measured(study, split="tset")),
        (r"^subset: must be 'stratified' or 'first', not 'firts'", lambda: measured(study, images=2, subset="firts")),
        (r"^steps: must be above 0, not 0", lambda: measured(study, attack="pgd", epsilon=0.1, steps=0)),
        (r"^seed: must be at least 0, not -1; batch_size: ", lambda: measured(study, batch_size=0, seed=-1)),
        (r"^workers: must be above 0, not 0", lambda: measured(study, workers=0)),
        (r"^unknown key 'imags'; did you mean 'images'\?", lambda: measured(study, imags=2)),
        (r"^device tpu: torch knows no such device", lambda: measured(study, device="tpu")),
        (r"^data: missing", lambda: arat_ray.evaluate(net, **how)),
        (r"^there is no folder nowhere", lambda: arat_ray.Study("nowhere").checkpoints()),
        (r"^there is no folder nowhere", lambda: arat_ray.Study("nowhere").evaluate(split="test", attack=ATTACK)),
        (r"^budget.trials: must be at least 1, not 0", lambda: arat_ray.tune(SEARCH, trials=0)),
        (r"^budget.hours: must be above 0.0, not -1", lambda: arat_ray.tune(SEARCH, hours=-1)),
        (r"^there is no folder nowhere", lambda: arat_ray.tune(SEARCH, earlier="nowhere", results=tmp_path)),
        (r"is a folder; Study\(", lambda: arat_ray.evaluate(study.path, split="test", **how)),
        (r"experiment 'small': there is no `search:`; train\(", lambda: arat_ray.tune(small())),
        (r"^nowhere.yaml: cannot be read", lambda: arat_ray.load_experiment("nowhere.yaml")),
        (r"there is no folder", lambda: arat_ray.read(tmp_path / "nowhere")),
        (r"has no table 'example'|no table", lambda: arat_ray.read(study.path, "example")),
        (r"the suffix must be one of", lambda: arat_ray.plot_front(study.front(), "front.gif")),
        (r"another place with results$", lambda: arat_ray.train(other, results=study.path.parent)),
        (r"^data /nowhere: there is no such file", lambda: arat_ray.train(small(), results=tmp_path, data="/nowhere")),
    ]  # fmt: skip
    for message, call in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_options_become_arguments_and_commands_stay() -> None:
    for text, shown in (
        ("go on with --resume, or lower --batch-size", "go on with resume=True, or lower batch_size"),
        ("--from a: measured otherwise", "earlier a: measured otherwise"),
        ("run `arat-ray pareto x --partial`", "run `arat-ray pareto x --partial`"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(shown)}$"), in_python():
            raise ValueError(text)


def test_what_a_network_cannot_take_is_said_beside_its_own_error() -> None:
    with pytest.raises(RuntimeError) as caught:
        arat_ray.evaluate(nn.Linear(3, 2), data=(torch.rand(1, 1, 8, 8), [0]), attack="fgsm", epsilon=0.1)  # type: ignore[arg-type]
    assert caught.value.__notes__ == ["the network was given one image, x [1, 1, 8, 8] float32 in [0, 1]"]


def test_a_path_may_be_text_a_home_or_an_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", f"{tmp_path}")
    assert as_path("~/study") == tmp_path / "study"
    address = as_path("s3://bucket/studies/layers")
    assert isinstance(address, Mirrored)
    assert f"{address}" == "s3://bucket/studies/layers"
    assert as_path(address) is address


def test_how_a_search_ended_is_a_handle_or_an_error(tmp_path: Path) -> None:
    from arat_ray.api.running import _study_of
    from arat_ray.cluster.study import Outcome

    study = _study_of(Outcome("budget.hours: spent", 2, saved=True), tmp_path)
    assert study.ended == (("budget.hours: spent"), 2)
    with pytest.raises(NotSavedError, match="`resume=True` measures them again"):
        _study_of(Outcome(None, 0, saved=False), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        _study_of(Outcome("interrupted", 0, saved=True), tmp_path)
