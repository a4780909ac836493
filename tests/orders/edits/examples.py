"""The inputs of the worked examples in worked_edits.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import UUID

from markethall.orders.contract import OrderView, PlaceOrder
from tests.orders.conftest import OrdersApp, attempt_without_key
from tests.orders.promotions.shop import create, voucher
from tests.orders.test_totals import BERLIN, GERMAN_TAXES, NEW_YORK, change_shop, configure

TOKYO: Final = BERLIN | {"city": "Tokyo", "postal_code": "100-0001", "country": "JP"}
CODE: Final = "SPRING"


class Product(NamedTuple):
    """A product, and its units when the order is placed; 0 if an edit adds the product."""

    price: int
    units: int
    tax_class: str = "standard"


@dataclass(frozen=True)
class Regime:
    """A shop with its taxes, its products and a voucher, and edits of one order by their names."""

    products: Mapping[str, Product]
    voucher: Mapping[str, Any]
    edits: Mapping[str, Mapping[str, int]]
    taxes: list[dict[str, Any]]
    address: Mapping[str, str] = field(default_factory=lambda: BERLIN)
    currency: str = "EUR"
    shipping: int | None = None
    prices_include_tax: bool = True

    async def set_up(self, app: OrdersApp) -> dict[str, UUID]:
        """Configure the shop, and return the ids of the products."""
        await configure(app, self.taxes, self.shipping, self.currency)
        await change_shop(app, prices_include_tax=self.prices_include_tax)
        await create(app, voucher(CODE, **{"percent": None, **self.voucher}))
        return {
            name: app.fake_inventory.add_product(
                20,
                product.price,
                self.currency,
                tax_class=product.tax_class,
                tags=("tea",) if name in {"tea", "green"} else (),
            )
            for name, product in self.products.items()
        }

    async def place(self, app: OrdersApp, products: Mapping[str, UUID]) -> OrderView:
        lines = [
            {"product_id": products[name], "quantity": product.units}
            for name, product in self.products.items()
            if product.units
        ]
        command = PlaceOrder.model_validate(
            {"lines": lines, "shipping_address": self.address, "voucher_code": CODE}
        )
        return await app.orders.place(app.buyer, command, attempt_without_key())


REGIMES: Final = {
    "P": Regime(
        {"mug": Product(1295, 3), "lamp": Product(4999, 1), "cup": Product(333, 0)},
        {"kind": "percent", "percent": "10"},
        {"P1": {"mug": 4}, "P2": {"mug": 1}, "P3": {"lamp": 0}, "P4": {"cup": 2}},
        GERMAN_TAXES,
        shipping=490,
    ),
    "F": Regime(
        {"tea": Product(799, 2), "pot": Product(2499, 1), "cup": Product(333, 0)},
        {"kind": "fixed", "amounts": [{"amount": 500, "currency": "EUR"}]},
        {
            "F1": {"tea": 3},
            "F2": {"tea": 1},
            "F3": {"pot": 0},
            "F4": {"cup": 1},
            "F5": {"tea": 0, "pot": 0, "cup": 1},
        },
        GERMAN_TAXES,
    ),
    "B": Regime(
        {
            "tea": Product(499, 3, "reduced"),
            "kettle": Product(5995, 1),
            "green": Product(299, 0, "reduced"),
        },
        {
            "kind": "buy_x_get_y",
            "buy_quantity": 2,
            "get_quantity": 1,
            "conditions": {"tags": ["tea"]},
        },
        {
            "B1": {"tea": 6},
            "B2": {"tea": 4},
            "B3": {"tea": 2},
            "B4": {"kettle": 0},
            "B5": {"green": 2},
        },
        GERMAN_TAXES,
    ),
    "S": Regime(
        {"mug": Product(1250, 2), "book": Product(999, 1, "untaxed"), "cable": Product(333, 0)},
        {"kind": "percent", "percent": "15"},
        {"S1": {"mug": 3}, "S2": {"mug": 1}, "S3": {"book": 0}, "S4": {"cable": 3}},
        [{"country": "US", "region": "NY", "rate": "0.08875"}],
        address=NEW_YORK,
        currency="USD",
        shipping=599,
        prices_include_tax=False,
    ),
    "Y": Regime(
        {
            "bento": Product(498, 3, "reduced"),
            "pan": Product(3980, 1),
            "tea": Product(150, 0, "reduced"),
        },
        {"kind": "fixed", "amounts": [{"amount": 1000, "currency": "JPY"}]},
        {"Y1": {"bento": 5}, "Y2": {"bento": 1}, "Y3": {"pan": 0}, "Y4": {"tea": 2}},
        [
            {"country": "JP", "rate": "0.1"},
            {"country": "JP", "rate": "0.08", "tax_class": "reduced"},
        ],
        address=TOKYO,
        currency="JPY",
        shipping=550,
    ),
}
