"""What the container gives to orders keeps the laws, wherever the neighbour lives."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from markethall.app import create_app
from markethall.settings import read_settings
from markethall.shared.errors import CalledWhileHoldingConnection, DeadlineExceeded
from markethall.topology import DEPENDENCIES, Context
from tests.partitions.in_process import remotes_of
from tests.partitions.sets import APART, PARTITIONS, TOGETHER
from tests.remote import now
from tests.wire.contracts import CONTRACTS, METHODS
from tests.wire.greeter import CALL, refusal_of


@pytest.fixture(params=[TOGETHER, APART], ids=["together", "apart"])
def orders(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The container of the process that serves orders. Nothing is opened."""
    partition = PARTITIONS[request.param]
    (block,) = [block for block in partition if Context.ORDERS in block]
    settings = read_settings(
        contexts=frozenset(block),
        context_urls=remotes_of(block, partition),
        storage="memory",
        redis_url="redis://127.0.0.1:1/0",
        data_dir=tmp_path,
    )
    return create_app(settings).container.orders_context


def ask(orders: Any, context: Context, method: str, **of_call: Any) -> Any:
    asked, _ = CONTRACTS[context].samples[method]
    neighbour = getattr(orders, context.value)()
    return getattr(neighbour, method)(CALL.model_copy(update=of_call), asked)


@pytest.mark.parametrize(("context", "method"), METHODS)
async def test_call_inside_transaction_fails_both_ways(
    orders: Any, context: Context, method: str
) -> None:
    async with orders.persistence().database.transaction():
        with pytest.raises(CalledWhileHoldingConnection):
            await ask(orders, context, method)


@pytest.mark.parametrize(("context", "method"), METHODS)
async def test_call_after_deadline_fails_both_ways(
    orders: Any, context: Context, method: str
) -> None:
    late = now() - timedelta(seconds=1)

    refusal = await refusal_of(ask(orders, context, method, deadline=late))

    assert type(refusal) is DeadlineExceeded
    assert refusal.details == {"dependency": context}


def test_every_dependency_of_orders_is_tested() -> None:
    assert {context for context, _ in METHODS} == DEPENDENCIES[Context.ORDERS]
