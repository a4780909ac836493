"""The contract suite of the shop, its shipping methods and its tax rates, on each storage."""

from asyncio import gather

import pytest

from markethall.orders.configuration.contract import MAX_ITEMS, TooManyItems
from markethall.orders.configuration.domain import ConfigurationItem, ItemKind
from markethall.orders.shipping.contract import (
    NewShippingMethod,
    ShippingCodeTaken,
    ShippingMethodChange,
    ShippingMethodNotFound,
)
from markethall.orders.shop.contract import ShopChange, ShopSettings
from markethall.orders.tax.contract import NewTaxRate, TaxRateChange, TaxRateTaken
from markethall.shared.kernel.errors import PreconditionFailed, ValidationFailed
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.observability.metrics import STATEMENTS
from tests.orders.conftest import STAFF, START, OrdersApp, attempt_without_key

FLAT = {"kind": "flat", "currency": "EUR", "price": 490}
VAT = NewTaxRate(country="DE", rate="0.19", name="VAT")


def method(code: str = "post", **fields: object) -> NewShippingMethod:
    return NewShippingMethod.model_validate({"code": code, "name": code, "rate": FLAT, **fields})


async def test_shop_that_was_never_changed_has_the_defaults(orders_app: OrdersApp) -> None:
    shop = await orders_app.container.shop().get(STAFF)

    assert shop.model_dump(exclude={"version"}) == ShopSettings().model_dump()
    assert (shop.version, shop.order_number_prefix) == (1, "MH-")


async def test_changed_shop_is_read_at_once(orders_app: OrdersApp) -> None:
    shop = orders_app.container.shop()
    assert (await shop.get(STAFF)).name == "Shop"

    changed = await shop.change(STAFF, ShopChange(name="Tea House", countries=("DE",)), {1})
    again = await shop.change(STAFF, ShopChange(countries=None, tax_id="DE1"), {2})

    assert (changed.name, changed.countries, changed.version) == ("Tea House", ("DE",), 2)
    assert await shop.get(STAFF) == again
    assert (again.name, again.countries, again.tax_id, again.version) == ("Tea House", (), "DE1", 3)


async def test_change_of_the_shop_needs_its_version_and_a_known_currency(
    orders_app: OrdersApp,
) -> None:
    shop = orders_app.container.shop()

    with pytest.raises(PreconditionFailed):
        await shop.change(STAFF, ShopChange(name="Tea House"), {7})
    with pytest.raises(ValidationFailed):
        await shop.change(STAFF, ShopChange(currencies=("CHF",)), {1})
    assert (await shop.get(STAFF)).version == 1


async def test_concurrent_changes_of_the_shop_apply_once(orders_app: OrdersApp) -> None:
    shop = orders_app.container.shop()

    results = await gather(
        *(shop.change(STAFF, ShopChange(name=f"Shop {n}"), {1}) for n in range(5)),
        return_exceptions=True,
    )

    assert sum(isinstance(result, PreconditionFailed) for result in results) == 4


async def test_shipping_method_is_created_changed_and_deleted(orders_app: OrdersApp) -> None:
    methods = orders_app.container.shipping_methods()
    attempt = attempt_without_key()
    created = await methods.create(STAFF, method(zones=[{"countries": ["DE"]}]), attempt)

    changed = await methods.change(
        STAFF, attempt.id, ShippingMethodChange(zones=None, delivery="tomorrow"), {1}
    )

    assert (created.shipping_method_id, created.version) == (attempt.id, 1)
    assert (changed.zones, changed.delivery, changed.rate) == ((), "tomorrow", created.rate)
    assert await methods.get(STAFF, attempt.id) == changed
    with pytest.raises(PreconditionFailed):
        await methods.delete(STAFF, attempt.id, {1})
    await methods.delete(STAFF, attempt.id, {2})
    with pytest.raises(ShippingMethodNotFound):
        await methods.get(STAFF, attempt.id)


async def test_repeated_create_returns_the_item(orders_app: OrdersApp) -> None:
    methods, attempt = orders_app.container.shipping_methods(), attempt_without_key()

    created = await methods.create(STAFF, method(), attempt)

    assert await methods.create(STAFF, method(), attempt) == created


async def test_change_without_effect_keeps_the_version(orders_app: OrdersApp) -> None:
    methods, attempt = orders_app.container.shipping_methods(), attempt_without_key()
    created = await methods.create(STAFF, method(), attempt)

    patch = ShippingMethodChange(name=created.name)
    assert await methods.change(STAFF, attempt.id, patch, {1}) == created


async def test_codes_and_rates_are_unique(orders_app: OrdersApp) -> None:
    methods, rates = orders_app.container.shipping_methods(), orders_app.container.tax_rates()
    await methods.create(STAFF, method("post"), attempt_without_key())
    other = await methods.create(STAFF, method("courier"), attempt_without_key())
    await rates.create(STAFF, VAT, attempt_without_key())

    with pytest.raises(ShippingCodeTaken):
        await methods.create(STAFF, method("post"), attempt_without_key())
    patch = ShippingMethodChange(code="post")
    with pytest.raises(ShippingCodeTaken):
        await methods.change(STAFF, other.shipping_method_id, patch, {1})
    with pytest.raises(TaxRateTaken):
        await rates.create(STAFF, VAT, attempt_without_key())
    await rates.create(STAFF, VAT.model_copy(update={"region": "BY"}), attempt_without_key())


async def test_concurrent_changes_to_one_code_apply_once(orders_app: OrdersApp) -> None:
    methods = orders_app.container.shipping_methods()
    made = [
        await methods.create(STAFF, method(f"code{n}"), attempt_without_key()) for n in range(4)
    ]

    results = await gather(
        *(
            methods.change(STAFF, one.shipping_method_id, ShippingMethodChange(code="post"), {1})
            for one in made
        ),
        return_exceptions=True,
    )

    assert sum(isinstance(result, ShippingCodeTaken) for result in results) == 3


async def test_patch_that_makes_an_invalid_rate_is_rejected(orders_app: OrdersApp) -> None:
    rates, attempt = orders_app.container.tax_rates(), attempt_without_key()
    await rates.create(STAFF, VAT, attempt)

    with pytest.raises(ValidationFailed) as refused:
        await rates.change(STAFF, attempt.id, TaxRateChange(region="DE-"), {1})

    assert refused.value.details["errors"][0]["field"] == "/region"


async def test_list_has_pages_in_the_order_of_creation(orders_app: OrdersApp) -> None:
    methods = orders_app.container.shipping_methods()
    codes = [f"code{number}" for number in range(5)]
    for code in codes:
        await methods.create(STAFF, method(code), attempt_without_key())

    first = await methods.list_page(STAFF, PageQuery(limit=3))
    second = await methods.list_page(STAFF, PageQuery(limit=3, cursor=first.next_cursor))

    assert [one.code for one in (*first.items, *second.items)] == codes
    assert second.next_cursor is None


async def test_number_of_items_is_limited(orders_app: OrdersApp) -> None:
    async with orders_app.persistence.database.transaction() as store:
        for number in range(MAX_ITEMS):
            item = ConfigurationItem(
                ItemKind.TAX_RATE, new_id(), str(number), VAT.model_dump_json(), 1, START
            )
            assert await store.insert_item(item)

    with pytest.raises(TooManyItems):
        await orders_app.container.tax_rates().create(STAFF, VAT, attempt_without_key())


async def test_configuration_is_read_from_the_cache(orders_app: OrdersApp) -> None:
    shop = orders_app.container.shop()
    await shop.get(STAFF)
    before = STATEMENTS._value.get()

    await shop.get(STAFF)

    assert STATEMENTS._value.get() == before
