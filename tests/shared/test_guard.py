"""The guard: no neighbour is called from inside a transaction, in process either."""

import asyncio
from typing import Any

import pytest

from markethall.shared.backend import Backend
from markethall.shared.db import Postgres
from markethall.shared.errors import CalledInTransaction, Malformed
from markethall.shared.guard import guarded
from markethall.shared.memory import MemoryDatabase
from tests.shared.conftest import ProbeMemoryStore, ProbeTables, Watch


class Neighbour:
    async def greet(self, name: str, *, loudly: bool = False) -> str:
        """Says hello."""
        return f"hello {name}" + "!" * loudly

    async def refuse(self) -> None:
        raise Malformed("no")


async def test_outside_a_transaction_the_neighbour_answers_as_ever() -> None:
    neighbour = guarded(Neighbour())

    assert await neighbour.greet("you", loudly=True) == "hello you!"
    with pytest.raises(Malformed):
        await neighbour.refuse()


async def test_inside_a_transaction_every_call_fails(backend: Backend[Any]) -> None:
    neighbour = guarded(Neighbour())

    async with backend.database.transaction() as store:
        with pytest.raises(CalledInTransaction, match="greet"):
            await neighbour.greet("you")
        await store.add("still usable")

    assert await neighbour.greet("you") == "hello you"


async def test_inside_a_reading_too_since_it_holds_a_connection(backend: Backend[Any]) -> None:
    neighbour = guarded(Neighbour())

    async with backend.database.reading():
        with pytest.raises(CalledInTransaction, match="greet"):
            await neighbour.greet("you")

    assert await neighbour.greet("you") == "hello you"


async def test_another_task_is_free_while_one_is_in_a_transaction(probe: Postgres) -> None:
    neighbour = guarded(Neighbour())
    task = asyncio.Event()

    async def meanwhile() -> str:
        await task.wait()
        return await neighbour.greet("you")

    other = asyncio.create_task(meanwhile())
    async with probe.transaction():
        task.set()
        assert await other == "hello you"


async def test_a_memory_database_says_so_when_a_task_would_wait_for_itself(watch: Watch) -> None:
    database = MemoryDatabase(ProbeTables(), ProbeMemoryStore, watch)

    async with database.transaction():
        with pytest.raises(RuntimeError, match="already"):
            async with database.reading():
                pass

    async with database.reading() as store:
        assert await store.count() == 0
