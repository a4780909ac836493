"""Test that each fall of the available units to the threshold publishes StockLow once."""

from uuid import UUID

from markethall.inventory.catalogue.contract.products import ProductChange, ProductView
from markethall.inventory.contract import StockLow
from markethall.shared.messaging.events import EventEnvelope
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp, consume_command


async def take_envelopes(inventory_app: InventoryApp) -> list[EventEnvelope]:
    """Mark all envelopes in the outbox as relayed, and return those of StockLow."""
    async with inventory_app.container.persistence().outbox.acquire_leadership() as leader:
        assert leader is not None
        envelopes = await leader.get_unrelayed(100)
        await leader.mark_relayed(envelopes, inventory_app.clock())
    return [envelope for envelope in envelopes if envelope.type == StockLow.type]


async def take_events(inventory_app: InventoryApp) -> list[tuple[UUID, int, int]]:
    """Return (product id, available, threshold) of the StockLow events since the last call."""
    events = [envelope.decode() for envelope in await take_envelopes(inventory_app)]
    return [(e.product_id, e.available, e.threshold) for e in events if isinstance(e, StockLow)]


async def product_with(
    inventory_app: InventoryApp, stock: int, threshold: int | None = 3
) -> ProductView:
    return await inventory_app.product(stock=stock, low_stock_threshold=threshold)


async def test_reaching_threshold_publishes_one_event(inventory_app: InventoryApp) -> None:
    tea = await product_with(inventory_app, 6)

    events = []
    for quantity in (2, 1, 1, 2):
        await inventory_app.reserve({tea.product_id: quantity})
        events.append(await take_events(inventory_app))

    assert events == [[], [(tea.product_id, 3, 3)], [], []]


async def test_event_is_published_again_after_restock(inventory_app: InventoryApp) -> None:
    tea = await product_with(inventory_app, 4)
    await inventory_app.reserve({tea.product_id: 2})
    await inventory_app.adjust(tea.product_id, delta=5)
    first = await take_events(inventory_app)

    await inventory_app.adjust(tea.product_id, "damaged", delta=-6)

    assert first == [(tea.product_id, 2, 3)]
    assert await take_events(inventory_app) == [(tea.product_id, 1, 3)]


async def test_repeated_reserve_publishes_no_second_event(inventory_app: InventoryApp) -> None:
    tea = await product_with(inventory_app, 4)
    order = inventory_app.order({tea.product_id: 1})

    first = await inventory_app.inventory.reserve(ANYONE, order)
    again = await inventory_app.inventory.reserve(ANYONE, order)

    assert first == again
    assert await take_events(inventory_app) == [(tea.product_id, 3, 3)]


async def test_each_fall_publishes_its_own_event(inventory_app: InventoryApp) -> None:
    """Consumers deduplicate events by their ids, so each event needs its own id."""
    tea, cup = await product_with(inventory_app, 4), await product_with(inventory_app, 4)

    await inventory_app.reserve({tea.product_id: 1, cup.product_id: 1})
    await inventory_app.adjust(tea.product_id, delta=5)
    await inventory_app.adjust(tea.product_id, "damaged", delta=-6)

    envelopes = await take_envelopes(inventory_app)
    product_ids = [envelope.key for envelope in envelopes]
    assert sorted(product_ids[:2]) == sorted((tea.product_id, cup.product_id))
    assert product_ids[2:] == [tea.product_id]
    assert len({envelope.event_id for envelope in envelopes}) == 3
    assert {envelope.event_id.version for envelope in envelopes} == {7}


async def test_consume_publishes_no_event(inventory_app: InventoryApp) -> None:
    tea = await product_with(inventory_app, 5)
    held = await inventory_app.reserve({tea.product_id: 3})
    after_reserve = await take_events(inventory_app)

    await inventory_app.inventory.consume(
        ANYONE, consume_command(held.reservation_id, {tea.product_id: 3})
    )

    assert len(after_reserve) == 1
    assert await take_events(inventory_app) == []


async def test_no_threshold_publishes_no_event(inventory_app: InventoryApp) -> None:
    tea = await product_with(inventory_app, 5, threshold=None)

    await inventory_app.reserve({tea.product_id: 5})

    assert await take_events(inventory_app) == []


async def test_new_threshold_applies_to_later_changes(inventory_app: InventoryApp) -> None:
    tea = await product_with(inventory_app, 9, threshold=None)
    change = ProductChange.model_validate({"low_stock_threshold": 8})
    await inventory_app.catalogue.change(STAFF, tea.product_id, change, {1})

    await inventory_app.reserve({tea.product_id: 1})

    assert await take_events(inventory_app) == [(tea.product_id, 8, 8)]


async def test_count_below_threshold_publishes_event(inventory_app: InventoryApp) -> None:
    tea = await product_with(inventory_app, 9)

    await inventory_app.adjust(tea.product_id, "counted", counted=2)

    assert await take_events(inventory_app) == [(tea.product_id, 2, 3)]


async def test_clamping_backorder_publishes_no_event(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=10, backorder_limit=5, low_stock_threshold=6)
    held, _ = [await inventory_app.reserve({tea.product_id: quantity}) for quantity in (10, 5)]
    change = ProductChange(backorder_limit=0)
    await inventory_app.catalogue.change(STAFF, tea.product_id, change, {tea.version})
    await take_events(inventory_app)

    await inventory_app.inventory.release(ANYONE, held.reservation_id)
    after_release = await take_events(inventory_app)
    await inventory_app.adjust(tea.product_id, "lost", delta=-1)

    assert (after_release, await take_events(inventory_app)) == ([], [])
    assert await inventory_app.available(tea.product_id) == 4
