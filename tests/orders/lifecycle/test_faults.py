"""The random tests find each planted fault within a few lives."""

import asyncio
from typing import Final

import pytest

from tests.orders.lifecycle.faults import FAULTS, build_with_kept_stock
from tests.orders.lifecycle.machine import ShopMachine
from tests.orders.lifecycle.machines import DeliveryMachine, PurchaseMachine
from tests.orders.lifecycle.real_contexts import ContextsMachine
from tests.orders.lifecycle.runs import run_lives

MAX_LIVES: Final = 60


@pytest.mark.parametrize(
    ("fault", "machine", "difference"),
    [
        ("restock twice", DeliveryMachine, "on_hand"),
        ("stock returned twice at cancel", DeliveryMachine, "on_hand"),
        ("refund rounded down per unit", DeliveryMachine, "kept"),
        ("uses kept at expiry", PurchaseMachine, "O7"),
    ],
)
def test_planted_fault_is_found(
    fault: str, machine: type[ShopMachine], difference: str, loop: asyncio.AbstractEventLoop
) -> None:
    with pytest.raises(AssertionError) as found:
        run_lives(machine, FAULTS[fault], loop, MAX_LIVES, shrinks=False)

    assert difference in f"{found.traceback[-1].statement} {found.value}"


def test_stock_kept_after_a_cancel_violates_the_integrity_of_the_data(
    loop: asyncio.AbstractEventLoop,
) -> None:
    with pytest.raises(AssertionError, match=r"O1\.committed_stock_is_sold"):
        run_lives(ContextsMachine, build_with_kept_stock, loop, MAX_LIVES, shrinks=False)
