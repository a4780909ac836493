"""The signal that wakes a context worker."""

import asyncio

import pytest

from markethall.shared.messaging.wake_signal import WakeSignal

# seconds; only a failing test waits for the whole time
TEST_TIMEOUT = 20


@pytest.fixture
def signal() -> WakeSignal:
    return WakeSignal()


async def test_set_wakes_waiting_task(signal: WakeSignal) -> None:
    waiting = asyncio.create_task(signal.wait(600))
    await asyncio.sleep(0)

    signal.set()

    async with asyncio.timeout(TEST_TIMEOUT):
        await waiting


async def test_signal_that_is_set_does_not_wait_until_cleared(signal: WakeSignal) -> None:
    signal.set()
    async with asyncio.timeout(TEST_TIMEOUT):
        await signal.wait(600)

    signal.clear()

    waiting = asyncio.create_task(signal.wait(600))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_wait_ends_after_timeout(signal: WakeSignal) -> None:
    async with asyncio.timeout(TEST_TIMEOUT):
        await signal.wait(0.001)


async def test_signal_works_on_several_event_loops_in_turn(signal: WakeSignal) -> None:
    async def wait_for_set() -> None:
        signal.clear()
        asyncio.get_running_loop().call_soon(signal.set)
        async with asyncio.timeout(TEST_TIMEOUT):
            await signal.wait(600)

    for _ in range(2):
        await asyncio.to_thread(asyncio.run, wait_for_set())
