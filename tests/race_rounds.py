"""Fixtures of race tests: the storages and their latencies, and the number of rounds."""

import os
from collections.abc import Mapping
from typing import Final

import pytest

Place = tuple[str, float]
# the storage, and the delay of its connection in each direction in seconds
MEMORY: Final[Place] = ("memory", 0.0)
NEAR: Final[Place] = ("sql", 0.0)
FAR: Final[Place] = ("sql", 0.02)
FULL: Final = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"


def race_rounds(full: int, *, memory: int, near: int, far: int) -> Mapping[Place, int]:
    """Return the number of rounds in each place. A full run has `full` rounds in each."""
    reduced = {MEMORY: memory, NEAR: near, FAR: far}
    return dict.fromkeys(reduced, full) if FULL else reduced


@pytest.fixture(params=[MEMORY, NEAR, FAR], ids=lambda place: f"{place[0]}-{place[1] * 1000:.0f}ms")
def place(request: pytest.FixtureRequest) -> Place:
    place: Place = request.param
    return place


@pytest.fixture
def race_database(request: pytest.FixtureRequest, place: Place) -> str:
    """The URL of the database. It is empty for the storage in memory."""
    return request.getfixturevalue("database_url") if place[0] == "sql" else ""
