"""Whoever started Ray hears when its processes are gone, once, and not when it is shut down."""

from __future__ import annotations

import threading

import pytest

from arat_ray.cluster import local


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "LOOK_S", 0.01)


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "was ended by SIGKILL, as the kernel does"), (-11, "was ended by SIGSEGV"), (1, "ended with exit code 1")],
)
def test_an_ending_is_told_in_words(code: int, words: str) -> None:
    assert local._ended(code).startswith(words)


def test_what_is_gone_is_told_once() -> None:
    told, heard = list[str](), threading.Event()

    def end(how: str, over: threading.Event) -> None:
        told.append(how)
        heard.set()

    with local.watched(end, look=lambda: "its raylet ended"):
        assert heard.wait(60)
    assert told == ["its raylet ended"]


def test_a_shutdown_is_no_end() -> None:
    looks = iter([None, "its raylet ended", None, None])
    seen = threading.Event()

    def look() -> str | None:
        now = next(looks, "")
        if now == "":
            seen.set()
        return now or None

    with local.watched(lambda how, over: pytest.fail(how), look=look):
        assert seen.wait(60)


def test_without_a_ray_of_its_own_a_process_has_nothing_to_miss() -> None:
    assert local.gone() is None
