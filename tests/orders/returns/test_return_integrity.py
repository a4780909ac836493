"""The integrity check that compares the lines of orders with their returns."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from markethall.orders.domain.return_integrity import ReturnedLine, judge_returns
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.integrity import Findings
from tests.orders.conftest import OrdersApp
from tests.orders.returns.test_returns import (
    approve,
    closed_return,
    delivered_order,
    receive,
    request,
)

SOUND = ReturnedLine(
    line_id=new_id(),
    order_id=new_id(),
    unit_price=500,
    quantity=3,
    delivered=3,
    in_return=1,
    returned=2,
    discount=100,
    tax=50,
    open_units=1,
    received_units=2,
    returned_price=1000,
    returned_discount=66,
    returned_tax=33,
)


async def test_returns_of_all_kinds_are_sound(orders_app: OrdersApp) -> None:
    order = await delivered_order(orders_app, 5, 1)
    await closed_return(orders_app, order, 2, 1)
    await approve(orders_app, await request(orders_app, order, 1))
    made = await request(orders_app, order, 1)
    await approve(orders_app, made)
    await receive(orders_app, made, 1)
    [check] = [
        check
        for check in orders_app.container.integrity_checks()
        if check.check_id == "O2.returns_match_lines"
    ]
    findings = Findings()

    await check.find(findings, timedelta(0))

    assert (findings.checked, findings.rows) == (2, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"delivered": 2},
        {"in_return": 0},
        {"returned": 1},
        {"open_units": 2},
        {"returned_price": 1001},
        {"returned_discount": 67},
        {"returned_tax": 34},
    ],
    ids=str,
)
def test_wrong_sums_are_reported(changes: dict[str, Any]) -> None:
    assert not list(judge_returns(SOUND))
    assert list(judge_returns(replace(SOUND, **changes)))
