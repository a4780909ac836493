"""Fixtures of the partition tests."""

from pathlib import Path

import pytest

from tests.partitions.servers import PartitionResources


@pytest.fixture(scope="session")
def resources(scratch: Path, server_url: str, template: str) -> PartitionResources:
    return PartitionResources(server_url, template, scratch)
