"""Random lives of carts, orders, payments, shipments and returns agree with a model."""

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Final

import asyncpg
import pytest

from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.conftest import RECORD_INITIAL_STATE, RESTORE_INITIAL_STATE, plain
from tests.orders.conftest import OrdersApp, build_orders_app
from tests.orders.lifecycle.machine import ShopMachine
from tests.orders.lifecycle.machines import DeliveryMachine, PurchaseMachine, WholeLifeMachine
from tests.orders.lifecycle.real_contexts import ContextsMachine, build_contexts_app
from tests.orders.lifecycle.runs import run_lives

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
# the number of random lives
LIVES: Final = {"memory": 300, "sql": 60} if FULL else {"memory": 15, "sql": 2}


@pytest.fixture
def build_app(
    storage: str, loop: asyncio.AbstractEventLoop, request: pytest.FixtureRequest
) -> Iterator[Callable[[], OrdersApp]]:
    """Return a function that builds the app. With Postgres, the database is empty."""
    if storage == "memory":
        yield lambda: build_orders_app(storage, None)
        return
    url: str = request.getfixturevalue("database_url")
    postgres = Postgres(url, PoolSize(min_size=1, max_size=5, timeout=10))
    cleaner = loop.run_until_complete(asyncpg.connect(plain(url)))
    loop.run_until_complete(cleaner.execute(RECORD_INITIAL_STATE))

    def build() -> OrdersApp:
        loop.run_until_complete(cleaner.execute(RESTORE_INITIAL_STATE))
        return build_orders_app(storage, postgres)

    yield build
    loop.run_until_complete(cleaner.close())
    loop.run_until_complete(postgres.close())


@pytest.mark.parametrize("machine", [PurchaseMachine, DeliveryMachine, WholeLifeMachine])
@pytest.mark.parametrize("storage", LIVES)
def test_any_life_of_orders_agrees_with_the_model(
    machine: type[ShopMachine],
    storage: str,
    loop: asyncio.AbstractEventLoop,
    build_app: Callable[[], OrdersApp],
) -> None:
    run_lives(machine, build_app, loop, LIVES[storage], is_random=FULL)


@pytest.mark.parametrize("capture", ["automatic", "on_fulfilment"])
def test_data_of_all_contexts_has_integrity_after_each_step(
    capture: str, loop: asyncio.AbstractEventLoop
) -> None:
    lives = LIVES["memory"]
    run_lives(ContextsMachine, lambda: build_contexts_app(capture), loop, lives, is_random=FULL)
