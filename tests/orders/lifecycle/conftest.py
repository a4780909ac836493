"""The event loop of the random tests of orders."""

import asyncio
from collections.abc import Iterator

import pytest


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Create an event loop for the machine, because Hypothesis rules cannot be coroutines."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()
