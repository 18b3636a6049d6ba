"""Exit codes of the commands, and what each says."""

from __future__ import annotations

FAILED, BAD_INPUT, NOT_SAVED, RAY_GONE, NOT_FOUND, INTERRUPTED = 1, 2, 3, 9, 127, 130
"""NOT_FOUND is the shell's, for a command that is not on the PATH; INTERRUPTED is that of Ctrl-C."""
BUDGETS = {"hours": 4, "device_hours": 5, "usd": 6, "stall": 7, "max_failures": 8, "gain": 10}
"""Of a study that a budget ended before its last trial, by the key of the budget."""
MEANINGS = {
    0: "succeeded",
    FAILED: "failed",
    BAD_INPUT: "refused its input",
    NOT_SAVED: "could not save all rows",
    **{code: f"stopped by budget.{budget}" for budget, code in BUDGETS.items()},
    RAY_GONE: "ended, because Ray on its machine did",
    NOT_FOUND: "failed: there is no arat-ray on the PATH of the cluster's head",
    INTERRUPTED: "stopped",
}
"""Of a job on a cluster: how it ended, by the exit code of its command."""
