"""Promotions in the checkout, on each storage."""

import pytest

from markethall.orders.contract import VoucherInvalid
from tests.orders.conftest import OrdersApp


async def test_unknown_voucher_is_refused_and_its_stock_released(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(5)

    with pytest.raises(VoucherInvalid) as caught:
        await orders_app.place(product_id, voucher_code="SPRING10")

    assert caught.value.details == {"voucher_code": "SPRING10", "reason": "unknown"}
    assert orders_app.fake_inventory.available(product_id) == 5
