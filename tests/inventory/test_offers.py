"""The contract suite of `Inventory.list_offers`, on each storage."""

from markethall.inventory.contract import ListOffers, ProductOffer
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.observability.metrics import STATEMENTS
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp

USD = {"amount": 1100, "currency": "USD"}


async def test_offer_has_the_fields_of_a_reservation_line(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(
        stock=5, category="Tea", tags=["green"], tax_class="reduced", weight_grams=250
    )

    offers = await inventory_app.list_offers(tea.product_id)
    reserved = await inventory_app.reserve({tea.product_id: 1})

    shared = offers[0].model_dump(exclude={"available"})
    line = reserved.lines[0].model_dump(exclude={"quantity", "consumed", "released"})
    assert (shared, offers[0].available) == (line, 5)


async def test_availability_excludes_live_reservations_only(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5, backorder_limit=2)
    await inventory_app.reserve({tea.product_id: 3}, minutes=5)

    assert [offer.available for offer in await inventory_app.list_offers(tea.product_id)] == [4]
    inventory_app.clock.advance(minutes=6)
    assert [offer.available for offer in await inventory_app.list_offers(tea.product_id)] == [7]


async def test_offer_has_the_price_in_the_requested_currency(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(prices=[USD])
    cup = await inventory_app.product()

    offers = await inventory_app.list_offers(tea.product_id, cup.product_id, currency="USD")

    assert _prices(offers) == {
        tea.product_id: Money(amount=1100, currency="USD"),
        cup.product_id: Money(amount=1250, currency="EUR"),
    }


async def test_unknown_and_inactive_products_have_no_offer(inventory_app: InventoryApp) -> None:
    tea, draft = await inventory_app.product(), await inventory_app.product(status="draft")
    gone = await inventory_app.product()
    await inventory_app.catalogue.archive(STAFF, gone.product_id, {1})

    offers = await inventory_app.list_offers(
        new_id(), gone.product_id, tea.product_id, draft.product_id, tea.product_id
    )

    assert [offer.product_id for offer in offers] == [tea.product_id]


async def test_offers_are_sorted_and_read_in_one_statement(
    sql_inventory_app: InventoryApp,
) -> None:
    products = [await sql_inventory_app.product(stock=1) for _ in range(3)]
    ids = [product.product_id for product in products]
    before = STATEMENTS._value.get()

    offers = await sql_inventory_app.list_offers(*reversed(ids))

    assert STATEMENTS._value.get() - before == 1
    assert [offer.product_id for offer in offers] == sorted(ids)


def _prices(offers: tuple[ProductOffer, ...]) -> dict[object, Money]:
    return {offer.product_id: offer.unit_price for offer in offers}


async def test_no_products_have_no_offers(inventory_app: InventoryApp) -> None:
    offers = await inventory_app.inventory.list_offers(ANYONE, ListOffers(product_ids=()))

    assert offers.items == ()
