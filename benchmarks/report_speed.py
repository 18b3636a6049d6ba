"""How fast a large report is drawn and filtered in a browser, and what `watch` costs while nothing happens.

    python -m benchmarks.report_size 1000 100 large && python benchmarks/report_speed.py large

FOLDER is what report_size has written. Debian's chromium, driven by playwright, opens report.html from disk: until its
first paint, and until all of it is drawn; then a brush over the middle of the trade-off, from the button's release to
the frame that shows all panels filtered. `watch` serves the same study to an open tab. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROUNDS = 7
BRUSHED = """() => {
  window.took = [];
  addEventListener("pointerup", () => {
    const began = performance.now();
    requestAnimationFrame(() => setTimeout(() => took.push(performance.now() - began)));
  }, true);
}"""
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
DRAWN = "#summary:not(:text('Unpacking'))"


def opened(browser: Any, address: str, seen: dict[str, list[float]]) -> Any:
    tab = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    tab.goto(address, wait_until="commit")
    tab.wait_for_selector(DRAWN)
    seen.setdefault("drawn_ms", []).append(tab.evaluate("() => performance.now()"))
    seen.setdefault("first_paint_ms", []).append(tab.evaluate(PAINTED))
    return tab


def brush(tab: Any, seen: dict[str, list[float]]) -> None:
    """Over the middle third of the trade-off, and away again."""
    box = tab.locator("#tradeoff svg").first.bounding_box()
    places = [(box["x"] + share * box["width"], box["y"] + share * box["height"]) for share in (0.35, 0.65)]
    tab.mouse.move(*places[0])
    tab.mouse.down()
    tab.mouse.move(*places[1], steps=5)
    tab.mouse.up()
    tab.wait_for_function("() => window.took.length > 0")
    seen.setdefault("brush_ms", []).append(tab.evaluate("() => window.took.pop()"))
    found, whole = (int(tab.inner_text(place).split()[word]) for place, word in (("#trials caption", 2), ("#shown", 3)))
    assert 0 < found < whole, "the brush has filtered"
    tab.click("text=Show all trials")
    tab.evaluate("() => { window.took = []; }")


def idle(browser: Any, study: Path, seconds: float) -> float:
    """CPU seconds of `watch` a second, in percent of a core, with a tab that follows."""
    command = [sys.executable, "-c", "from arat_ray.cli import main; main()", "watch", str(study)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = next(line.split()[1] for line in process.stdout if line.startswith("open "))
        tab = browser.new_page()
        tab.goto(address)
        tab.wait_for_selector("#live:text('Live.')")
        time.sleep(5)
        before = spent(process.pid)
        time.sleep(seconds)
        return 100 * (spent(process.pid) - before) / seconds
    finally:
        process.terminate()
        process.wait()


def spent(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds that `watch` is looked at")
    options = parser.parse_args()
    seen: dict[str, list[float]] = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(ROUNDS):
            tab = opened(browser, (options.folder / "report.html").resolve().as_uri(), seen)
            tab.evaluate(BRUSHED)
            brush(tab, seen)
            tab.context.close()
        found = {key: [round(each(of)) for each in (min, statistics.median, max)] for key, of in seen.items()}
        share = idle(browser, options.folder / "large", options.idle)
        told = {"chromium": browser.version, "least, median, most of": ROUNDS, **found}
        print(json.dumps(told | {"watch_idle_percent_of_a_core": round(share, 2)}))
        browser.close()


if __name__ == "__main__":
    main()
