"""Test that the container of orders gives each contract a call guard, both local and remote."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from markethall.app import create_app
from markethall.contexts import topology
from markethall.settings import read_settings
from markethall.shared.kernel.errors import CalledWhileHoldingConnection, DeadlineExceeded
from tests.partitions.in_process import remotes_of
from tests.partitions.partitions import FULL_SPLIT, MONOLITH, PARTITIONS
from tests.rpc.contracts import CONTRACTS, METHODS
from tests.rpc.probe_contract import CTX, error_of
from tests.rpc_loopback import now


@pytest.fixture(params=[MONOLITH, FULL_SPLIT], ids=["together", "apart"])
def orders(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The container of orders in this partition. It opens no connections."""
    partition = PARTITIONS[request.param]
    (block,) = [block for block in partition if "orders" in block]
    settings = read_settings(
        contexts=frozenset(block),
        context_urls=remotes_of(block, partition),
        storage="memory",
        redis_url="redis://127.0.0.1:1/0",
        data_dir=tmp_path,
    )
    return create_app(settings).container.contexts["orders"]


def call(orders: Any, context: str, method: str, **changes: Any) -> Any:
    argument, _ = CONTRACTS[context].samples[method]
    service = getattr(orders.clients(), context)
    return getattr(service, method)(CTX.model_copy(update=changes), argument)


@pytest.mark.parametrize(("context", "method"), METHODS)
async def test_call_inside_transaction_fails_both_ways(
    orders: Any, context: str, method: str
) -> None:
    async with orders.persistence().database.transaction():
        with pytest.raises(CalledWhileHoldingConnection):
            await call(orders, context, method)


@pytest.mark.parametrize(("context", "method"), METHODS)
async def test_call_after_deadline_fails_both_ways(orders: Any, context: str, method: str) -> None:
    expired = now() - timedelta(seconds=1)

    error = await error_of(call(orders, context, method, deadline=expired))

    assert type(error) is DeadlineExceeded
    assert error.details == {"dependency": context}


def test_every_dependency_of_orders_is_tested() -> None:
    assert {context for context, _ in METHODS} == topology().dependencies["orders"]
