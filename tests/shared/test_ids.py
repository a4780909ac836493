"""Identifiers sort by the time they were made and are never the same."""

import time
from uuid import RFC_4122, UUID

from markethall.shared.ids import new_id


def test_an_id_is_a_uuid_of_version_7_in_its_rfc_variant() -> None:
    made = [new_id() for _ in range(1000)]

    assert {one.version for one in made} == {7}
    assert {one.variant for one in made} == {RFC_4122}


def test_an_id_begins_with_the_milliseconds_of_its_making() -> None:
    before = time.time_ns() // 1_000_000

    made = new_id()

    after = time.time_ns() // 1_000_000
    assert before <= made.int >> 80 <= after


def test_ids_of_different_milliseconds_sort_by_time() -> None:
    first = new_id()
    while time.time_ns() // 1_000_000 == first.int >> 80:
        continue

    second = new_id()

    assert str(first) < str(second)


def test_no_two_ids_are_the_same_and_all_random_bits_move() -> None:
    made = [new_id() for _ in range(20_000)]

    assert len(set(made)) == len(made)
    moved = 0
    for one in made:
        moved |= one.int ^ made[0].int
    random_bits = ((1 << 12) - 1) << 64 | (1 << 62) - 1
    assert moved & random_bits == random_bits


def test_an_id_survives_its_text() -> None:
    made = new_id()

    assert UUID(str(made)) == made
