"""Studies of before there was a record: they get one from what they hold, once; their old files are kept.

They had a log of rows (`rows-00000.jsonl`, compressed when full), Optuna's journal as what counts of their trials,
and a compressed file of JSON for each evaluation.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from arat_ray.experiment.spec import Experiment
from arat_ray.results import evaluation_records, merging, reader
from arat_ray.results.schema import TABLES
from arat_ray.results.segments import FOLDER, files, folder_of, rewrite
from arat_ray.results.table_folder import mark_of
from arat_ray.study import description, facts, rewriting
from arat_ray.study.description import Kind
from arat_ray.study.facts import Facts
from arat_ray.study.record import mend_with
from arat_ray.study.state import trial_id

KEPT = Path(FOLDER) / "before-record"
"""Where the old files go."""
OPTUNA = Path(FOLDER) / "optuna.log"
NUMBER, POINT, FROM, GIVEN, CONSTRAINED = "number", "point", "from", "fixed_params", "constraint"
NO_HISTORY = (ValueError, LookupError, TypeError, AttributeError, AssertionError)
"""What Optuna raises of a journal that is none."""


def is_of_before(study: Path) -> bool:
    """Whether there is a study that has no record."""
    if files(folder_of(study)):
        return False
    parts = reader.part_files(study / "trials")
    try:
        return any(_logs(study)) or (any(map(reader.rows_in, parts)) and not mark_of(reader.schema(study)))
    except ValueError:  # it is damaged, and not known to have had a record
        return True


def convert(study: Path, experiment: Experiment, *, warn: Callable[[str], None], mends: bool = False) -> bool:
    """Give a study of before its record; whether it was one.

    ValueError where its tables or its study.json are damaged, unless it `mends` them.
    """
    if not is_of_before(study):
        return False
    of_tables, damaged = facts.of_tables(study, experiment)
    if damaged and not mends:
        name, parts = next(iter(damaged.items()))
        raise ValueError(f"{study / name / parts[0]} is damaged or missing; {mend_with(study)}")
    known = facts.union(_of_log(study, experiment, warn), of_tables)
    _take_optuna(study, experiment, known, warn)
    facts.with_attempts(known, experiment)
    known.starts = [start_of(study, experiment, mends=mends)]
    evaluations = {
        name: known.tables[name].to_pylist() for name in evaluation_records.TABLE_OF.values() if name in known.tables
    }
    if any(evaluations.values()):
        evaluation_records.write(
            study, evaluations.get("evaluations", []), evaluations.get("examples", []), name="before-record"
        )
    rewrite(study, rewriting.events(known, experiment))
    (study / KEPT).mkdir(exist_ok=True)
    for path in [*_logs(study), study / OPTUNA]:
        if path.exists():
            path.rename(study / KEPT / path.name)
    warn(f"{study} is of an earlier version; it has got its record, and the files of before are in {KEPT}")
    return True


def start_of(study: Path, experiment: Experiment, *, mends: bool = True) -> dict[str, Any]:
    """How a study was started, from its study.json; where that is damaged, and it `mends`, from its study.yaml."""
    yaml = (study / "study.yaml").read_bytes().decode(errors="surrogateescape")
    try:
        found = description.read(study)
        found.pop("from", None)
    except ValueError:
        if not mends:
            raise
        kind: Kind = "tune" if experiment.search or (study / OPTUNA).exists() else "train"
        return description.of_start(experiment, yaml, kind=kind, content=None) | {"started_at": []}
    return found | {"yaml": yaml, "started_at": found.get("started_at") or []}


def _logs(study: Path) -> Iterator[Path]:
    yield from sorted((study / FOLDER).glob("rows-*.jsonl*"))
    yield from sorted((study / evaluation_records.FOLDER).glob("*.json.gz"))


def _of_log(study: Path, experiment: Experiment, warn: Callable[[str], None]) -> Facts:
    """What the log of rows says, and the logs of evaluations."""
    known, rows = facts.none(experiment, study), dict[str, list[dict[str, Any]]]()
    for path in _logs(study):
        for number, line in enumerate(_lines(path, warn), start=1):
            try:
                found = json.loads(line)
                if path.suffixes[-2:] == [".json", ".gz"]:
                    for name in evaluation_records.TABLE_OF.values():
                        rows.setdefault(name, []).extend(found[name])
                elif found["table"] == "trials":
                    changes = found.get("row") or found["change"]
                    key = (changes["trial_id"], changes["attempt"])
                    known.trials[key] = ({} if "row" in found else known.trials.get(key, {})) | changes
                else:
                    rows.setdefault(found["table"], []).append(found["row"])
            except (ValueError, KeyError, TypeError):
                warn(f"{path}, line {number} is damaged")
    for name in rows.keys() & TABLES.keys():
        table = merging.from_rows(rows[name], facts.schema(name, experiment, study))
        known.tables[name] = merging.newest(table, TABLES[name].key)
    return known


def _lines(path: Path, warn: Callable[[str], None]) -> list[bytes]:
    """The whole lines of a file, as far as it can be read; of one of an evaluation, all of it."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            warn(f"{path} is damaged")
            return []
    if path.suffixes[-2:] == [".json", ".gz"]:
        return [content]
    return [line for line in content[: content.rfind(b"\n") + 1].split(b"\n") if line]


def _take_optuna(study: Path, experiment: Experiment, known: Facts, warn: Callable[[str], None]) -> None:
    """Add what Optuna's journal knows beside the tables: what was asked, given, and learned from earlier studies."""
    path = study / OPTUNA
    if not path.exists():
        return
    import optuna  # which nothing else needs that trains or reads
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        trials = optuna.load_study(study_name=experiment.name, storage=storage).trials
    except NO_HISTORY as error:
        warn(f"{path} cannot be read ({type(error).__name__}: {error}); what the tables say of trials is all there is")
        return
    learned = []
    for trial in trials:
        number = trial.user_attrs.get(NUMBER)
        if FROM in trial.user_attrs and trial.values is not None:
            learned.append(
                {
                    "key": trial.user_attrs[FROM],
                    "sampled": trial.params,
                    "goals": trial.values,
                    "violations": dict(trial.constraints),
                }
            )
        if number is None:
            continue
        sampled = trial.system_attrs.get(GIVEN, {}) | trial.params
        has_begun = trial.state != TrialState.WAITING or (trial_id(experiment.name, number), 1) in known.trials
        whole = sampled.keys() == {path for path, domain in experiment.search.items() if domain.applies(sampled)}
        if has_begun and whole:
            attrs = {
                key: value for key, value in trial.system_attrs.items() if not key.startswith((GIVEN, CONSTRAINED))
            }
            asked: dict[str, Any] = {"number": number, "sampled": sampled} | ({"attrs": attrs} if attrs else {})
            asked |= {"point": trial.user_attrs[POINT]} if POINT in trial.user_attrs else {}
            known.asked[number] = asked
    if learned:
        sources = description.read(study).get("from") or [{"study": "of before"}]
        known.learned = [{"source": source, "trials": learned if i == 0 else []} for i, source in enumerate(sources)]
