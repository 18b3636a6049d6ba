"""Probes: samples that try every value of a search, each under conditions that hold."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from arat_ray.experiment.search import Domain
from arat_ray.experiment.spec import Experiment, Sampled

CONTEXTS_AT_MOST = 200
"""Of a domain's conditions: combinations of labels that are tried out."""


def probes(experiment: Experiment) -> Iterator[tuple[str, Sampled]]:
    """Samples that show whether each value of each domain can be used: (where it is written, sample)."""
    known: dict[str, list[Sampled]] = {}
    for path, domain in experiment.search.items():
        for context in _contexts(experiment.search, path, known):
            for sample in domain.probes:
                yield f"search.{path}", {**context, path: sample}
    for number, point in enumerate(experiment.first):
        yield f"first[{number}]", point


def _contexts(search: Mapping[str, Domain], path: str, known: dict[str, list[Sampled]]) -> list[Sampled]:
    """What may have been sampled where the domain of `path` applies, as far as it bears on that.

    Domains that stand above find theirs in `known`, where this one's are put.
    """
    if path in known:
        return known[path]
    given: dict[str, list[Any]] = {}
    for other, wanted in search[path].when.items():
        labels = wanted if isinstance(wanted, list) else [wanted]
        given[other] = [search[other].read(label) for label in labels]
    contexts: list[Sampled] = [{}]
    for other, domain in search.items():
        if other in given or path.startswith(f"{other}."):
            labels = given.get(other, domain.labels or [])
            above = _contexts(search, other, known)
            options = [{**context, other: label} for label in labels for context in above[:CONTEXTS_AT_MOST]]
            if other not in given and domain.when:
                options.append({})  # its own condition may fail
            together = (
                {**context, **option}
                for context in contexts
                for option in options
                if all(context.get(key, label) == label for key, label in option.items())
            )
            contexts = list(itertools.islice(together, CONTEXTS_AT_MOST))
    known[path] = contexts
    return contexts
