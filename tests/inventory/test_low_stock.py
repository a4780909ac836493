"""A shelf that runs low says so, once per fall."""

from uuid import UUID

from markethall.inventory.contract import Product, ProductChange, StockLow
from markethall.shared.events import Envelope
from tests.inventory.conftest import ANYONE, STAFF, House, leaving


async def said(house: House) -> list[Envelope]:
    """Since it was asked last."""
    async with house.container.backend().outbox.lead() as lead:
        assert lead is not None
        envelopes = await lead.unpublished(100)
        await lead.mark_published(envelopes, house.watch())
    return [envelope for envelope in envelopes if envelope.type == StockLow.type]


async def told(house: House) -> list[tuple[UUID, int, int]]:
    """What has been said since it was asked last: product, available, threshold."""
    events = [envelope.open() for envelope in await said(house)]
    return [(e.product_id, e.available, e.threshold) for e in events if isinstance(e, StockLow)]


async def product_with(house: House, stock: int, threshold: int | None = 3) -> Product:
    return await house.product(stock=stock, low_stock_threshold=threshold)


async def test_a_take_that_falls_to_the_threshold_is_told_once(house: House) -> None:
    tea = await product_with(house, 6)

    falls = []
    for quantity in (2, 1, 1, 2):
        await house.reserve({tea.product_id: quantity})
        falls.append(await told(house))

    assert falls == [[], [(tea.product_id, 3, 3)], [], []]


async def test_it_is_told_again_when_it_has_been_filled_up(house: House) -> None:
    tea = await product_with(house, 4)
    await house.reserve({tea.product_id: 2})
    await house.adjust(tea.product_id, delta=5)
    first = await told(house)

    await house.adjust(tea.product_id, "damaged", delta=-6)

    assert first == [(tea.product_id, 2, 3)]
    assert await told(house) == [(tea.product_id, 1, 3)]


async def test_the_same_reserve_again_is_no_second_fall(house: House) -> None:
    tea = await product_with(house, 4)
    order = house.order({tea.product_id: 1})

    first = await house.inventory.reserve(ANYONE, order)
    again = await house.inventory.reserve(ANYONE, order)

    assert first == again
    assert await told(house) == [(tea.product_id, 3, 3)]


async def test_every_fall_is_an_event_of_its_own(house: House) -> None:
    """Listeners know them by their ids: two that share one would be one."""
    tea, cup = await product_with(house, 4), await product_with(house, 4)

    await house.reserve({tea.product_id: 1, cup.product_id: 1})
    await house.adjust(tea.product_id, delta=5)
    await house.adjust(tea.product_id, "damaged", delta=-6)

    envelopes = await said(house)
    fallen = [envelope.key for envelope in envelopes]
    assert sorted(fallen[:2]) == sorted((tea.product_id, cup.product_id))
    assert fallen[2:] == [tea.product_id]
    assert len({envelope.event_id for envelope in envelopes}) == 3
    assert {envelope.event_id.version for envelope in envelopes} == {7}


async def test_goods_that_are_sold_were_told_of_when_they_were_taken(house: House) -> None:
    tea = await product_with(house, 5)
    held = await house.reserve({tea.product_id: 3})
    taken = await told(house)

    await house.inventory.consume(ANYONE, leaving(held.reservation_id, {tea.product_id: 3}))

    assert len(taken) == 1
    assert await told(house) == []


async def test_without_a_threshold_nothing_is_told(house: House) -> None:
    tea = await product_with(house, 5, threshold=None)

    await house.reserve({tea.product_id: 5})

    assert await told(house) == []


async def test_a_new_threshold_counts_from_now_on(house: House) -> None:
    tea = await product_with(house, 9, threshold=None)
    change = ProductChange.model_validate({"low_stock_threshold": 8})
    await house.catalogue.change(STAFF, tea.product_id, change, {1})

    await house.reserve({tea.product_id: 1})

    assert await told(house) == [(tea.product_id, 8, 8)]


async def test_a_count_that_finds_too_few_is_told(house: House) -> None:
    tea = await product_with(house, 9)

    await house.adjust(tea.product_id, "counted", counted=2)

    assert await told(house) == [(tea.product_id, 2, 3)]


async def test_what_was_promised_beyond_the_limit_is_no_fall_when_it_comes_down(
    house: House,
) -> None:
    tea = await house.product(stock=10, backorder_limit=5, low_stock_threshold=6)
    held, _ = [await house.reserve({tea.product_id: quantity}) for quantity in (10, 5)]
    change = ProductChange(backorder_limit=0)
    await house.catalogue.change(STAFF, tea.product_id, change, {tea.version})
    await told(house)

    await house.inventory.release(ANYONE, held.reservation_id)
    after_release = await told(house)
    await house.adjust(tea.product_id, "lost", delta=-1)

    assert (after_release, await told(house)) == ([], [])
    assert await house.available(tea.product_id) == 4
