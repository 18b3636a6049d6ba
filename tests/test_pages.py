"""README and docs/: links lead somewhere, what they name is there, and the README stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import imports

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_page_and_to_a_heading_in_it(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_pages_link_to_pages_only_as_the_site_has_no_more(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if not link.startswith(("http://", "https://"))]
    assert not [link for link in links if link.startswith(("..", "/"))]


def test_the_readme_links_to_every_page() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md") if page.name != "index.md"} <= linked


def test_the_readme_fits_on_120_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_what_the_page_on_architecture_names_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", page)
    assert len(named) > 30
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "arat_ray" / name).exists()]
    folders = {"trials/", "epochs/", "decisions/", "journal/", "evaluations/", "examples/", "fast/", "models/"}
    assert set(missing) <= folders, missing


def test_every_room_is_on_the_page_on_architecture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [folder.parent.name for folder in (ROOT / "arat_ray").rglob("__init__.py")]
    assert not [room for room in rooms if f"{room}/" not in page]


def test_every_test_that_a_page_names_is_there() -> None:
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert not [name for name in named if f"def {name}(" not in sources]


def test_the_graph_on_the_page_on_architecture_is_that_of_the_code() -> None:
    drawn = imports.mermaid(imports.of_rooms(imports.graph()))
    assert f"```mermaid\n{drawn}```" in (ROOT / "docs" / "architecture.md").read_text()


def test_the_site_has_every_page() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if f": {page.name}\n" not in site]
