"""The guard: no neighbour is called from inside a transaction, in process either."""

import asyncio
from typing import Any

import pytest

from markethall.shared.backend import Backend
from markethall.shared.call import Call
from markethall.shared.clock import utc_now
from markethall.shared.db import Postgres
from markethall.shared.errors import CalledInTransaction, Malformed
from markethall.shared.guard import AllowList, Errands, Guard, guarded
from markethall.shared.memory import MemoryDatabase
from tests.shared.conftest import ProbeMemoryStore, ProbeTables, Watch


class Neighbour:
    async def greet(self, call: Call, name: str, *, loudly: bool = False) -> str:
        """Says hello."""
        self.asked_in = call.request_id
        return f"hello {name}" + "!" * loudly

    async def refuse(self, call: Call) -> None:
        raise Malformed(f"no to {call.request_id}")


CALL = Call(request_id="test")
TABLE = {"greeter": {name: frozenset({"orders"}) for name in ("greet", "refuse")}}


def open_to_orders(neighbour: Neighbour, caller: str = "orders", seconds: float = 5) -> Neighbour:
    guard = Guard(caller, "greeter", AllowList(TABLE), Errands(), utc_now, seconds)
    return guarded(neighbour, guard)


async def test_outside_a_transaction_the_neighbour_answers_as_ever() -> None:
    neighbour = open_to_orders(Neighbour())

    assert await neighbour.greet(CALL, "you", loudly=True) == "hello you!"
    with pytest.raises(Malformed):
        await neighbour.refuse(CALL)


async def test_inside_a_transaction_every_call_fails(backend: Backend[Any]) -> None:
    neighbour = open_to_orders(Neighbour())

    async with backend.database.transaction() as store:
        with pytest.raises(CalledInTransaction, match="greet"):
            await neighbour.greet(CALL, "you")
        await store.add("still usable")

    assert await neighbour.greet(CALL, "you") == "hello you"


async def test_inside_a_reading_too_since_it_holds_a_connection(backend: Backend[Any]) -> None:
    neighbour = open_to_orders(Neighbour())

    async with backend.database.reading():
        with pytest.raises(CalledInTransaction, match="greet"):
            await neighbour.greet(CALL, "you")

    assert await neighbour.greet(CALL, "you") == "hello you"


async def test_another_task_is_free_while_one_is_in_a_transaction(probe: Postgres) -> None:
    neighbour = open_to_orders(Neighbour())
    task = asyncio.Event()

    async def meanwhile() -> str:
        await task.wait()
        return await neighbour.greet(CALL, "you")

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
