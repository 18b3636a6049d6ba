"""What each command and each room loads; a fresh interpreter a case."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest

from arat_ray import locks
from arat_ray.results.schema import Metadata
from arat_ray.study.tables import StudyTables
from tests.frontier.tables import judged
from tests.launchers.filled import SHIPPED, filled
from tools import imports

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "arat_ray"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
HEAVY = ("torch", "ray", "pandas", "optuna", "matplotlib")
COMPILER = ("torch._dynamo", "torch._inductor", "sympy", "torch.onnx")
"""What torch imports to compile, a second of CPU; nothing is compiled here."""
RUN = """
import sys
from arat_ray.cli import main
try:
    main(sys.argv[1:])
except SystemExit as exit:
    assert not exit.code, exit.code
"""


def loaded(program: str, *arguments: str, among: tuple[str, ...] = HEAVY) -> set[str]:
    """Which heavy packages, or others, a program has loaded when it ends."""
    report = f"\nimport sys\nprint('LOADED', *(name for name in {among} if name in sys.modules))"
    command = [sys.executable, "-c", program + report, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of one complete trial."""
    metadata = Metadata(
        study="small", goals=("clean_accuracy", "robust_accuracy"), reference_point=(0.0, 0.0), revision="4f2a"
    )
    writer = StudyTables(tmp_path / "small", params={"depth": pa.int64()}, metadata=metadata)
    writer.trial(
        {
            "trial_id": "small-00000",
            "attempt": 1,
            "study": "small",
            "number": 0,
            "status": "complete",
            "is_full_fidelity": True,
            "clean_accuracy": 0.9,
            "robust_accuracy": 0.5,
            "images": 100,
            "attack": "pgd-20",
            "norm": "linf",
            "epsilon": 8 / 255,
            "split": "validation",
            "epochs_done": 2,
            "checkpoint": "checkpoints/small-00000/last.pt",
            "config": "{}",
            "config_hash": "44136fa355b3678a",
            "param_depth": 2,
        }
    )
    writer.flush()
    return tmp_path / "small"


@pytest.mark.parametrize(
    "verb",
    [
        [],
        ["validate"],
        ["train"],
        ["tune"],
        ["evaluate"],
        ["dial"],
        ["pareto"],
        ["compare"],
        ["pick"],
        ["export"],
        ["submit"],
        ["status"],
        ["stop"],
        ["doctor"],
        ["results", "why"],
        ["results", "rebuild"],
        ["results", "export"],
        ["report"],
        ["watch"],
        ["cluster", "check"],
        ["cluster", "prepare", "aws"],
    ],
)
def test_help_loads_nothing_heavy(verb: list[str]) -> None:
    assert loaded(RUN, *verb, "--help") == set()


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_pareto_loads_nothing_heavy(form: list[str], study: Path) -> None:
    assert loaded(RUN, "pareto", str(study), *form) == set()


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_evaluations_are_compared_and_drawn_without_anything_heavy(form: list[str], study: Path) -> None:
    a, b = judged(study, "small-00000", "rrc"), judged(study, "small-00000", "rcc", attack="pgd-20")
    assert loaded(RUN, "compare", str(study / a), str(study / b), *form) == set()
    chosen = ("--attack", "autoattack", "--split", "test")
    assert loaded(RUN, "pareto", str(study), *chosen, *form) == set()


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_why_loads_nothing_heavy(form: list[str], study: Path) -> None:
    assert loaded(RUN, "results", "why", str(study), "0", *form) == set()


@pytest.mark.parametrize("verb", [["show"], ["show", "--json"], ["trials"], ["trials", "--csv"]])
def test_tables_as_text_load_nothing_heavy(verb: list[str], study: Path) -> None:
    assert loaded(RUN, "results", verb[0], str(study), *verb[1:]) == set()


def test_a_report_is_written_without_anything_heavy(study: Path) -> None:
    assert loaded(RUN, "report", str(study), "-o", str(study.parent / "report.html")) == set()


def test_a_study_is_exported_without_anything_heavy(study: Path) -> None:
    words = ["results", "export", str(study), "--to", "csv", "--output", str(study.parent / "out")]
    assert loaded(RUN, *words) == set()


def test_pick_chooses_and_prints_without_anything_heavy(study: Path) -> None:
    experiment = {"validate": {}, "maximize": ["clean_accuracy", "robust_accuracy"], "resources": {"workers": 1}}
    (study / "study.json").write_text(json.dumps({"experiment": experiment}))
    assert loaded(RUN, "pick", str(study), "--max", "clean") == set()


SECOND = """
import sys
from arat_ray.cli import main
try:
    main(sys.argv[1:])
except SystemExit as exit:
    assert exit.code == 2, exit.code
"""


@pytest.mark.parametrize("verb", ["tune", "train", "confirm"])
def test_a_second_driver_is_refused_before_anything_heavy_is_loaded(verb: str, study: Path) -> None:
    file = study.parent / "small.yaml"
    file.write_text("name: small\n")
    folder = study if verb != "confirm" else study.with_name("small-confirm")
    folder.mkdir(exist_ok=True)
    words = [study, "--seeds", "2"] if verb == "confirm" else [file, "--results", study.parent]
    program = "import io; sys.stderr = io.StringIO()\n" + SECOND + "\nmessage = sys.stderr.getvalue()"
    program += "\nassert 'is being written to by another process' in message and message.count(chr(10)) == 1, message"
    with locks.held(folder / ".lock"):
        assert loaded("import sys\n" + program, verb, *map(str, words)) == set()


def test_cluster_files_are_checked_without_anything_heavy(tmp_path: Path) -> None:
    for name in SHIPPED:
        (tmp_path / name).write_text(filled(name))
        assert loaded(RUN, "cluster", "check", str(tmp_path / name)) == set()


def test_no_two_modules_have_a_public_class_of_one_name() -> None:
    homes: dict[str, list[str]] = {}
    for path in imports.PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(path.relative_to(imports.PACKAGE).as_posix())
    assert len(homes) > 100
    assert not {name: where for name, where in homes.items() if len(where) > 1}


def test_places_are_known_without_what_opens_them() -> None:
    program = "import arat_ray.cli.common, arat_ray.storage.session, sys"
    assert loaded(program, among=("pyarrow", "obstore", "boto3", "requests")) == set()


def test_validate_builds_the_network_but_starts_no_search() -> None:
    assert loaded(RUN, "validate", "search_spaces/quickstart.yaml") & {"torch", "ray", "optuna"} == {"torch"}


def test_validate_knows_the_layers_of_all_networks_without_torchs_compiler() -> None:
    files = [str(file) for file in sorted((ROOT / "search_spaces").glob("*.yaml"))]
    program = """
import sys
from arat_ray.cli import main
for file in sys.argv[1:]:
    main(["validate", file], standalone_mode=False)
"""
    assert loaded(program, *files, among=COMPILER) == set()


TRAIN = """
import sys
from pathlib import Path
from arat_ray.cluster.trials import launch
from tests.training.runs import make, run, validate
arat = {"name": "arat", "preset": "official", "invariance_weight": 1, "layers": ["bn3"]}
digits = {"name": "digits", "images": 80}
for optimizer in ("sgd", "adamw"):
    more = {"optimizer": {"name": optimizer}, "averaging": {"name": "ema"}, "weight_perturbation": {"gamma": 0.01}}
    train = make(method=arat, dataset=digits, epochs=1, diagnostics={}, **more)
    run(train, validate(20), Path(sys.argv[1]) / optimizer)
"""


def test_a_worker_trains_and_measures_without_torchs_compiler(tmp_path: Path) -> None:
    assert loaded(TRAIN, str(tmp_path), among=COMPILER) == set()


def test_the_first_line_of_a_search_is_there_before_anything_heavy() -> None:
    program = """
import os, sys
from arat_ray.cli import main

class FirstLine:
    def write(self, text):
        if isinstance(text, bytes):
            raise TypeError("text is written here")
        if not text:
            return
        heavy = [name for name in ("torch", "ray", "pydantic", "pyarrow") if name in sys.modules]
        os.write(1, f"{text.strip()} {heavy}".encode())
        os._exit(0)

    def flush(self): ...

sys.stdout = FirstLine()
main(["tune", "search_spaces/layers.yaml"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "checking search_spaces/layers.yaml []", done.stderr


def test_training_and_measuring_need_no_search() -> None:
    """In one interpreter: what none of them loads, each alone does not load either."""
    modules = (
        *("arat_ray.training.export.network", "arat_ray.training.loop", "arat_ray.evaluation.accuracy"),
        *("arat_ray.evaluation.autoattack", "arat_ray.evaluation.request", "arat_ray.experiment.plan"),
        "arat_ray.study.single",
    )
    assert not loaded(f"import {', '.join(modules)}") & {"ray", "optuna"}


def test_a_search_loads_what_models_curves_and_what_submits_jobs_only_where_it_does() -> None:
    assert loaded("import arat_ray.cluster.study", among=("scipy", "sklearn", "aiohttp")) == set()


@cache
def modules_and_names(source: Path) -> set[str]:
    """What a file imports, anywhere in it, by whole dotted names: modules, and the names taken from them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def importing(*packages: str) -> set[str]:
    """The files that import one of these top-level packages, anywhere in them."""
    found = (each for each in SOURCES if {name.split(".")[0] for name in modules_and_names(each)} & {*packages})
    return {str(source.relative_to(PACKAGE)) for source in found}


def test_only_the_cluster_room_imports_ray() -> None:
    assert {name.split("/")[0] for name in importing("ray")} == {"cluster"}


def test_only_one_module_imports_private_names_of_ray() -> None:
    def is_private(name: str) -> bool:
        return name.startswith("ray.") and ("._" in name or ".generated" in name)

    found = [source for source in SOURCES if any(map(is_private, modules_and_names(source)))]
    assert found == [PACKAGE / "cluster" / "ray_internals.py"]


def test_one_module_imports_pyautoattack() -> None:
    assert importing("pyautoattack") <= {"evaluation/attack_classes.py"}


def test_onnx_is_imported_where_it_is_written_only() -> None:
    assert importing("onnx", "onnxscript", "onnxruntime") <= {"training/export/formats.py"}


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("base", ("torch", "optuna")),
        ("results", ("torch", "pydantic", "optuna")),
        ("frontier", ("torch", "pydantic", "optuna", "matplotlib")),
        ("report", ("torch", "pydantic", "optuna")),
        ("storage", ("torch", "pydantic", "optuna")),
        ("tracking", ("torch", "pydantic", "optuna")),
        ("launchers", ("torch", "optuna")),
        ("training", ("optuna",)),
        ("evaluation", ("optuna",)),
    ],
)
def test_a_room_does_without_the_libraries_that_are_not_its_own(room: str, forbidden: tuple[str, ...]) -> None:
    assert room in {"base", *ROOMS}
    assert not [name for name in importing(*forbidden) if (name.split("/")[0] if "/" in name else "base") == room]


def test_no_module_imports_in_a_circle() -> None:
    assert imports.circle(imports.graph()) == []


def test_arrows_between_rooms_go_downward() -> None:
    assert imports.upward(imports.graph()) == []


def test_every_room_has_its_floor() -> None:
    placed = [room for rooms in imports.FLOORS for room in rooms]
    assert sorted(placed) == sorted({*ROOMS, "base", "arat_ray"})


def test_imports_inside_functions_and_for_types_only_are_arrows(tmp_path: Path) -> None:
    package = tmp_path / "arat_ray"
    (package / "study").mkdir(parents=True)
    (package / "text.py").write_text("def late():\n    from arat_ray.study import folder\n")
    (package / "study" / "folder.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import arat_ray.text\n"
    )
    found = imports.graph(package)
    assert found == {"arat_ray.text": {"arat_ray.study.folder"}, "arat_ray.study.folder": {"arat_ray.text"}}
    assert set(imports.circle(found)) == set(found)
    assert imports.upward(found) == [("arat_ray.text", "arat_ray.study.folder")]
