"""One version of everything on all nodes: constraints, cluster files, image and pyproject agree."""

from __future__ import annotations

import re
import tomllib

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from arat_ray.launchers.defaults import ray_wanted
from arat_ray.version import __version__
from tests.launchers.filled import CLUSTERS, ROOT, SHIPPED

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==")
    for line in (CLUSTERS / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_constraints_pin_every_dependency_within_its_range() -> None:
    extras = PROJECT["optional-dependencies"]
    for text in (*PROJECT["dependencies"], *extras["cluster"], *extras["launchers"]):
        wanted = Requirement(text)
        assert wanted.specifier.contains(PINS[canonicalize_name(wanted.name)]), text


def test_cluster_files_and_image_install_the_pinned_ray() -> None:
    texts = {name: (CLUSTERS / name).read_text() for name in SHIPPED} | {"Dockerfile": DOCKERFILE}
    for name, text in texts.items():
        versions = re.findall(r"\bray\[[\w,]+\]==([\d.]+)|rayVersion: \"([\d.]+)\"", text)
        assert versions, name
        assert {first or second for first, second in versions} == {PINS["ray"]}, name
    assert ray_wanted() is not None
    assert PINS["ray"].startswith(f"{ray_wanted()}.")


def test_nodes_and_image_get_one_uv_and_a_python_that_the_project_takes() -> None:
    texts = [(CLUSTERS / name).read_text() for name in SHIPPED if name.endswith("yaml")] + [DOCKERFILE]
    assert len({found for text in texts for found in re.findall(r"(?:uv/|uv==)(\d+\.\d+\.\d+)", text)}) == 1
    pythons = {found for text in texts for found in re.findall(r"(?:--python |python:)(3\.\d+)", text)}
    assert len(pythons) == 1
    assert SpecifierSet(PROJECT["requires-python"]).contains(pythons.pop())


def test_the_image_is_named_after_the_version_that_it_holds() -> None:
    for text in ((CLUSTERS / "kuberay.yaml").read_text(), DOCKERFILE):
        assert set(re.findall(r"/arat-ray:([\w.]+)", text)) == {__version__}


def test_the_image_runs_without_root_with_a_token_and_keeps_to_itself() -> None:
    assert re.search(r"^FROM python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^USER 1000$", DOCKERFILE, re.MULTILINE)
    for wanted in ("RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0", "--constraints"):
        assert wanted in DOCKERFILE
