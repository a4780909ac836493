"""Test the timeout that restarts whenever a new state is reported."""

import asyncio

import pytest

from tests.progress import progress_limit

SECONDS = 0.2


async def test_wait_goes_on_while_states_are_new() -> None:
    async with progress_limit(SECONDS) as limit:
        started = asyncio.get_running_loop().time()
        state = 0
        while asyncio.get_running_loop().time() < started + 3 * SECONDS:
            state += 1
            limit.note(state)
            await asyncio.sleep(0)


@pytest.mark.parametrize("states", [1, 2])
async def test_wait_ends_without_a_new_state(states: int) -> None:
    async def alternate() -> None:
        number = 0
        async with progress_limit(SECONDS) as limit:
            while True:
                number += 1
                limit.note(number % states)
                await asyncio.sleep(0)

    with pytest.raises(TimeoutError):
        await alternate()
