"""Where rows are, without keeping their keys."""

from __future__ import annotations

import random

from arat_ray.results.index import Index


def test_every_key_is_found_in_its_part_and_no_other_key_is() -> None:
    draw, index, parts = random.Random(0), Index(), dict[int, list[tuple[str, int]]]()
    for part in range(40):
        parts[part] = [(f"t{part}", i) for i in range(draw.randrange(1, 200))]
        index.add(parts[part], part)
    assert len(index) == sum(map(len, parts.values()))
    assert len(index._runs) < 15  # merged as they grow
    asked = [(part, draw.choice(keys)) for part, keys in parts.items()]
    found = index.find([("t0", -1), *(key for _, key in asked), ("nowhere", 3)])
    assert found == {part: [key] for part, key in asked}
    assert index.find([]) == {}


def test_two_keys_of_one_hash_are_both_offered() -> None:
    index = Index()
    assert hash((-1,)) == hash((-2,))
    index.add([(-1,)], 0)
    index.add([(-2,)], 1)
    assert index.find([(-1,)]) == {0: [(-1,)], 1: [(-1,)]}
