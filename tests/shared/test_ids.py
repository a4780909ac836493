"""Test that ids are unique UUIDv7 values that sort by creation time."""

import time
from uuid import RFC_4122, UUID

from markethall.shared.kernel.ids import derive_uuid7, new_id


def test_id_is_uuid7() -> None:
    ids = [new_id() for _ in range(1000)]

    assert {item.version for item in ids} == {7}
    assert {item.variant for item in ids} == {RFC_4122}


def test_id_starts_with_creation_milliseconds() -> None:
    before = time.time_ns() // 1_000_000

    new = new_id()

    after = time.time_ns() // 1_000_000
    assert before <= new.int >> 80 <= after


def test_ids_of_different_milliseconds_sort_by_time() -> None:
    first = new_id()
    while time.time_ns() // 1_000_000 == first.int >> 80:
        continue

    second = new_id()

    assert str(first) < str(second)


def test_successive_ids_are_unique_and_ordered() -> None:
    ids = [new_id() for _ in range(20_000)]

    assert ids == sorted(set(ids))


def test_derived_id_is_deterministic_and_has_time_of_origin() -> None:
    origin = new_id()

    first, again, other = (derive_uuid7(origin, purpose) for purpose in ("a", "a", "b"))

    assert first == again != other
    assert first.version == 7
    assert first.int >> 80 == origin.int >> 80


def test_id_round_trips_as_text() -> None:
    new = new_id()

    assert UUID(str(new)) == new
