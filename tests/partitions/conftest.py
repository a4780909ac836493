"""The ground on which partitions of the hall are built."""

from pathlib import Path

import pytest

from tests.partitions.servers import TestResources


@pytest.fixture(scope="session")
def resources(scratch: Path, server_url: str, template: str) -> TestResources:
    return TestResources(server_url, template, scratch)
