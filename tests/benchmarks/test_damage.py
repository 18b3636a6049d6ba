"""No command is silent about a damaged file of a study."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "damage.py"


@pytest.mark.parametrize("kind", ["record, the open segment"])
def test_a_damaged_file_is_mended_or_told(kind: str) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--only", kind], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 of 22 are not as they should be" in done.stdout
