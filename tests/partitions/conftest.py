"""The ground on which partitions of the hall are built."""

from pathlib import Path

import pytest

from tests.partitions.halls import Ground


@pytest.fixture(scope="session")
def ground(scratch: Path, server_url: str, template: str) -> Ground:
    return Ground(server_url, template, scratch)
