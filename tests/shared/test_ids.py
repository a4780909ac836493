"""Identifiers sort by the time they were made and are never the same."""

import time
from uuid import RFC_4122, UUID

from markethall.shared.kernel.ids import derive_uuid7, new_id


def test_an_id_is_a_uuid_of_version_7_in_its_rfc_variant() -> None:
    made = [new_id() for _ in range(1000)]

    assert {one.version for one in made} == {7}
    assert {one.variant for one in made} == {RFC_4122}


def test_id_starts_with_creation_milliseconds() -> None:
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


def test_ids_made_in_a_row_are_unique_and_in_order() -> None:
    made = [new_id() for _ in range(20_000)]

    assert made == sorted(set(made))


def test_derived_id_is_the_same_each_time_and_keeps_the_time_of_its_origin() -> None:
    origin = new_id()

    first, again, other = (derive_uuid7(origin, purpose) for purpose in ("a", "a", "b"))

    assert first == again != other
    assert first.version == 7
    assert first.int >> 80 == origin.int >> 80


def test_id_round_trips_as_text() -> None:
    made = new_id()

    assert UUID(str(made)) == made
