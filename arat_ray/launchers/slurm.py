"""Slurm: the options of a batch script, its shell syntax, and what keeps its cluster closed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from arat_ray.launchers.defaults import HEAD_METRICS, METRICS
from arat_ray.launchers.document import PLACEHOLDER, placeholders_in
from arat_ray.launchers.problems import Problem, Rule, Violation, apply
from arat_ray.launchers.schema import unknown

_WORDS = """
    account array begin chdir clusters comment constraint container contiguous cores-per-socket cpu-freq
    cpus-per-gpu cpus-per-task deadline dependency distribution error exclude exclusive export export-file
    extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint
    hold immediate input job-name kill-on-invalid-dep licenses mail-type mail-user mem mem-bind mem-per-cpu
    mem-per-gpu mincpus network nice no-kill no-requeue nodefile nodelist nodes ntasks ntasks-per-core
    ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output overcommit oversubscribe parsable
    partition power prefer priority profile propagate qos quiet reboot requeue reservation signal
    sockets-per-node spread-job switches test-only thread-spec threads-per-core time time-min tmp tres-per-task
    uid use-min-nodes verbose wait wait-all-nodes wckey wrap
"""
OPTIONS = frozenset(_WORDS.split())
"""sbatch's long options."""
NEEDED = ("nodes", "ntasks-per-node", "cpus-per-task", "time")
SHARED = re.compile(r"(?:\$\{?TMPDIR|/tmp|/var/tmp|/dev/shm)(?![\w.-])|\$\{TMPDIR:-")
"""How a path begins whose folder everybody may write to."""
UNKNOWABLE = re.compile(r"mktemp|urandom|token_hex|token_urlsafe|uuidgen|SLURM_TMPDIR")
COUNTS = ("nodes", "ntasks-per-node", "cpus-per-task", "ntasks")


class Script(NamedTuple):
    """A batch script: its #SBATCH options with their lines, and its commands without comments."""

    options: dict[str, str]
    lines: dict[str, int]
    commands: str
    starts: list[int]
    """The line of the file on which each line of `commands` stands."""

    def line(self, text: str) -> int | None:
        """The line of the file on which a command first stands."""
        index = self.commands.find(text)
        return self.starts[self.commands.count("\n", 0, index)] if index >= 0 else None


def read(text: str) -> Script:
    """The parts of a batch script; lines ending in a backslash are joined with the next."""
    options: dict[str, str] = {}
    lines: dict[str, int] = {}
    commands: list[str] = []
    starts: list[int] = []
    going_on = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#SBATCH"):
            for word in line.removeprefix("#SBATCH").partition(" #")[0].split():
                name, _, value = word.removeprefix("--").partition("=")
                options[name], lines[name] = value, number
        elif not line.lstrip().startswith("#") and line.strip():
            code = line.strip().removesuffix("\\")
            if going_on:
                commands[-1] += " " + code
            else:
                commands.append(code)
                starts.append(number)
            going_on = line.endswith("\\")
    return Script(options, lines, "\n".join(commands), starts)


def schema(text: str) -> list[Problem]:
    """Options that sbatch has not, options that are needed, and what bash cannot read."""
    script, problems = read(text), []
    for name, value in script.options.items():
        if name not in OPTIONS:
            problem = unknown(("#SBATCH",), name, OPTIONS)
            problems.append(problem._replace(line=script.lines[name]))
        elif name in COUNTS and not re.fullmatch(r"[1-9]\d*", value) and not PLACEHOLDER.search(value):
            says = f"{value or 'nothing'} is not a whole number"
            problems.append(Problem(("#SBATCH", name), says, "write one above 0", script.lines[name]))
    problems += [
        Problem(("#SBATCH", name), "is missing", f"add #SBATCH --{name}=...")
        for name in NEEDED
        if name not in script.options
    ]
    if bash := shutil.which("bash"):
        read_only = subprocess.run([bash, "-n"], input=text, capture_output=True, text=True, check=False)
        for error in re.findall(r"line (\d+): (.+)", read_only.stderr)[:1]:
            problems.append(Problem((), f"bash cannot read it: {error[1]}", "mend the syntax", int(error[0])))
    return problems


def placeholders(text: str) -> list[Problem]:
    """The placeholders outside of comments, options among them."""
    return [
        problem
        for number, line in enumerate(text.splitlines(), 1)
        if line.startswith("#SBATCH") or not line.lstrip().startswith("#")
        for problem in placeholders_in(line, number)
    ]


def _token(script: Script) -> Iterator[Violation]:
    modes = re.findall(r"RAY_AUTH_MODE=(\w+)", script.commands)
    if not modes:
        yield Violation(("RAY_AUTH_MODE",))
    for mode in modes:
        if mode != "token":
            yield Violation(("RAY_AUTH_MODE",), mode)


def _token_private(script: Script) -> Iterator[Violation]:
    file = re.search(r"RAY_AUTH_TOKEN_PATH=", script.commands)
    umask = re.search(r"^umask 0?77$", script.commands, re.MULTILINE)
    if file is None:
        yield Violation(("RAY_AUTH_TOKEN_PATH",))
    if umask is None or (file is not None and umask.start() > file.start()):
        yield Violation(("umask",), None if umask is None else "set after the token is written")


def _in_a_shared_folder(script: Script) -> Iterator[Violation]:
    """Folders and files of a name that others can know in a folder where they can make it before."""
    folders = [*_given(script, "RAY_TMPDIR"), *re.findall(r"--temp-dir[= ](\S+)", script.commands)]
    if not folders:
        yield Violation(("RAY_TMPDIR",))
    named = [("RAY_TMPDIR", each) for each in folders]
    for name, value in named + [("RAY_AUTH_TOKEN_PATH", each) for each in _given(script, "RAY_AUTH_TOKEN_PATH")]:
        spelled = _spelled_out(script, value)
        if SHARED.match(spelled) and not UNKNOWABLE.search(spelled):
            yield Violation((name,), value)


def _given(script: Script, name: str) -> list[str]:
    """What a script gives to a variable."""
    value = r"((?:\$\([^)]*\)|\"[^\"]*\"|'[^']*'|[^\s;&|\"'])+)"
    return re.findall(rf"(?<![\w$]){name}={value}", script.commands)


def _spelled_out(script: Script, value: str) -> str:
    """A value with the script's own variables in it replaced, without quotes."""
    for _ in range(5):
        for name in re.findall(r"\$\{?(\w+)", value):
            if found := _given(script, name):
                value = re.sub(rf"\$\{{{name}[^}}]*\}}|\${name}\b", lambda _: found[0], value)
    return value.replace('"', "").replace("'", "")


def _metrics(script: Script) -> Iterator[Violation]:
    if "--metrics-export-port" not in script.commands and not re.search(rf"{METRICS}=0\b", script.commands):
        yield Violation((METRICS,))
    if not re.search(rf"{HEAD_METRICS[0]}=\d+", script.commands):
        yield Violation((HEAD_METRICS[0],))


def _token_removed(script: Script) -> Iterator[Violation]:
    if not re.search(r"trap .*rm -f .*RAY_AUTH_TOKEN_PATH.* EXIT", script.commands):
        yield Violation(("trap",))


def _token_hidden(script: Script) -> Iterator[Violation]:
    for given in re.findall(r"RAY_AUTH_TOKEN=\S+", script.commands):
        yield Violation(("RAY_AUTH_TOKEN",), given)


def _runs(script: Script) -> list[str]:
    return [line for line in script.commands.splitlines() if "ray symmetric-run" in line]


def _inside_srun(script: Script) -> Iterator[Violation]:
    runs = _runs(script)
    if not runs:
        yield Violation(("ray symmetric-run",))
    for run in runs:
        if not re.search(r"\bsrun\b.*ray symmetric-run", run):
            yield Violation(("ray symmetric-run",), "outside of srun")
        for wanted in ("--min-nodes", "--kill-on-bad-exit"):
            if wanted not in run:
                yield Violation(("ray symmetric-run", wanted))


def _all_cpus(script: Script) -> Iterator[Violation]:
    for run in _runs(script):
        if not re.search(r"\bsrun\b.*--cpus-per-task\b.*ray symmetric-run", run):
            yield Violation(("ray symmetric-run", "--cpus-per-task"))


def _dashboard(script: Script) -> Iterator[Violation]:
    for run in _runs(script):
        hosts = re.findall(r"--dashboard-host[= ](\S+)", run) or [None]
        for host in hosts:
            if host not in ("127.0.0.1", "localhost"):
                yield Violation(("ray symmetric-run", "--dashboard-host"), host)


def _usage_statistics(script: Script) -> Iterator[Violation]:
    if not re.search(r"RAY_USAGE_STATS_ENABLED=0\b", script.commands):
        yield Violation(("RAY_USAGE_STATS_ENABLED",))


def _alone(script: Script) -> Iterator[Violation]:
    if "exclusive" not in script.options:
        yield Violation(("#SBATCH", "exclusive"))


RULES = (
    Rule(
        "token-auth",
        "any account on the cluster's machines could run code as you (CVE-2023-48022)",
        "export RAY_AUTH_MODE=token",
        _token,
    ),
    Rule(
        "token-private",
        "other accounts could read the token",
        "write `umask 077` before RAY_AUTH_TOKEN_PATH is set and its file written",
        _token_private,
    ),
    Rule(
        "own-folder",
        "in the shared temporary folder others can make what has a name that they know, and read or replace what you "
        "put there",
        "write RAY_TMPDIR=$(mktemp --dry-run /tmp/ray-XXXXXXXXXX), and have each node mkdir -m 700 it",
        _in_a_shared_folder,
    ),
    Rule("token-removed", "tokens would pile up", "write trap 'rm -f \"$RAY_AUTH_TOKEN_PATH\"' EXIT", _token_removed),
    Rule("token-hidden", "environments can be read in job records", "use RAY_AUTH_TOKEN_PATH, a file", _token_hidden),
    Rule(
        "one-cluster",
        "a node that is missing or dead would leave the others waiting",
        "start Ray by `srun --kill-on-bad-exit=1 ray symmetric-run --min-nodes $SLURM_JOB_NUM_NODES`",
        _inside_srun,
    ),
    Rule(
        "all-cpus",
        "steps do not inherit it since Slurm 22.05, and all of Ray may run on one CPU",
        'add --cpus-per-task="$SLURM_CPUS_PER_TASK" to srun',
        _all_cpus,
    ),
    Rule("dashboard-local", "the dashboard takes jobs, which are code", "add --dashboard-host=127.0.0.1", _dashboard),
    Rule(
        "metrics-closed",
        "Ray's metrics ports ask for no token, and other users share the network",
        f"export {METRICS}=0 {HEAD_METRICS[0]}=70000 (which is no port)",
        _metrics,
    ),
    Rule("no-usage-statistics", "Ray reports home", "export RAY_USAGE_STATS_ENABLED=0", _usage_statistics),
    Rule(
        "nodes-alone",
        "two clusters on one node collide, and other users reach the ports that ask for no token",
        "add #SBATCH --exclusive",
        _alone,
    ),
)


def rules(text: str) -> list[Problem]:
    """The defaults for Slurm that the script breaks."""
    script = read(text)
    return [
        problem._replace(line=script.lines.get(str(problem.path[-1])) or script.line(str(problem.path[0])))
        for problem in apply(RULES, script)
    ]
