"""What may be sold before it is there: as many as the product allows, and never one more."""

from asyncio import gather

import pytest

from markethall.inventory.contract import OutOfStock, Product, ProductChange
from markethall.inventory.domain import MAIN_WAREHOUSE
from tests.inventory.conftest import ANYONE, STAFF, House, giving_back, leaving
from tests.inventory.shelves import NORTH, put_on_shelf, shelves


async def limited(house: House, product: Product, limit: int) -> None:
    command = ProductChange(backorder_limit=limit)
    seen = await house.catalogue.product(STAFF, product.product_id)
    await house.catalogue.change(STAFF, product.product_id, command, {seen.version})


async def test_as_many_as_the_limit_are_sold_before_they_are_there(house: House) -> None:
    tea = await house.product(stock=2, backorder_limit=3)

    assert await house.available(tea.product_id) == 5
    await house.reserve({tea.product_id: 5})
    with pytest.raises(OutOfStock) as refusal:
        await house.reserve({tea.product_id: 1})

    assert refusal.value.details["lines"][0]["available"] == 0
    assert await house.shelf(tea.product_id) == (2, 5)
    assert await house.available(tea.product_id) == 0


async def test_a_new_product_says_at_once_what_may_be_sold(house: House) -> None:
    tea = await house.product(backorder_limit=5)

    assert tea.available == 5
    assert await house.available(tea.product_id) == 5


async def test_many_buyers_get_exactly_what_is_there_and_on_order(house: House) -> None:
    tea = await house.product(stock=2, backorder_limit=3)

    results = await gather(
        *(house.reserve({tea.product_id: 1}) for _ in range(12)), return_exceptions=True
    )

    assert sum(not isinstance(result, BaseException) for result in results) == 5
    assert await house.shelf(tea.product_id) == (2, 5)


async def test_what_is_not_there_yet_cannot_leave(house: House) -> None:
    tea = await house.product(stock=2, backorder_limit=3)
    held = await house.reserve({tea.product_id: 5})

    with pytest.raises(OutOfStock) as refusal:
        await house.inventory.consume(ANYONE, leaving(held.reservation_id, {tea.product_id: 3}))
    await house.inventory.consume(ANYONE, leaving(held.reservation_id, {tea.product_id: 2}))
    before = await house.shelf(tea.product_id)
    await house.adjust(tea.product_id, delta=3)
    await house.inventory.consume(ANYONE, leaving(held.reservation_id, {tea.product_id: 3}))

    assert refusal.value.details == {
        "lines": [{"product_id": str(tea.product_id), "requested": 3, "available": 2}]
    }
    assert before == (0, 3)
    assert await house.shelf(tea.product_id) == (0, 0)


async def test_the_limit_follows_the_product(house: House) -> None:
    tea = await house.product(stock=1)

    await limited(house, tea, 4)
    raised = await house.available(tea.product_id)
    await limited(house, tea, 2)

    assert raised == 5
    assert await house.available(tea.product_id) == 3


async def test_what_is_promised_stays_promised_when_the_limit_is_lowered(house: House) -> None:
    tea = await house.product(stock=5, backorder_limit=4)
    held = await house.reserve({tea.product_id: 7})

    await limited(house, tea, 0)

    assert await house.available(tea.product_id) == 0
    await house.inventory.consume(ANYONE, leaving(held.reservation_id, {tea.product_id: 3}))
    assert await house.shelf(tea.product_id) == (2, 4)
    await house.adjust(tea.product_id, delta=3)
    assert await house.available(tea.product_id) == 1
    await house.inventory.release(ANYONE, held.reservation_id)
    assert await house.available(tea.product_id) == 5


async def test_when_it_is_given_back_it_is_on_offer_no_more(house: House) -> None:
    tea = await house.product(backorder_limit=5)
    first, second = [await house.reserve({tea.product_id: 2}) for _ in range(2)]
    await house.reserve({tea.product_id: 1}, minutes=1)
    await limited(house, tea, 0)

    await house.inventory.release(ANYONE, first.reservation_id)
    await house.inventory.release_part(
        ANYONE, giving_back(second.reservation_id, {tea.product_id: 1})
    )
    house.watch.forward(minutes=2)
    await house.sweep()

    assert await house.available(tea.product_id) == 0
    assert await house.shelf(tea.product_id) == (0, 1)
    with pytest.raises(OutOfStock):
        await house.reserve({tea.product_id: 1})


async def test_goods_that_are_elsewhere_go_before_those_that_are_nowhere(house: House) -> None:
    tea = await house.product(backorder_limit=5)
    cup = await house.product(stock=5)
    await put_on_shelf(house, tea.product_id, NORTH, 4)

    seen = []
    for wants in ({tea.product_id: 3}, {tea.product_id: 1, cup.product_id: 1}, {tea.product_id: 2}):
        await house.reserve(wants)
        seen.append(await shelves(house, tea.product_id))

    assert seen == [
        {MAIN_WAREHOUSE: (0, 0), NORTH: (4, 3)},
        {MAIN_WAREHOUSE: (0, 0), NORTH: (4, 4)},
        {MAIN_WAREHOUSE: (0, 2), NORTH: (4, 4)},
    ]
    assert await house.available(tea.product_id) == 3


async def test_goods_of_expired_holds_go_before_those_that_are_nowhere(house: House) -> None:
    tea = await house.product(stock=2, backorder_limit=5)
    await house.reserve({tea.product_id: 2}, minutes=1)
    house.watch.forward(minutes=2)

    await house.reserve({tea.product_id: 2})

    assert await house.shelf(tea.product_id) == (2, 2)


async def test_with_what_is_nowhere_yet_there_is_just_enough(house: House) -> None:
    tea = await house.product(stock=1, backorder_limit=2)
    await put_on_shelf(house, tea.product_id, NORTH, 1)
    await house.reserve({tea.product_id: 1}, minutes=1)
    house.watch.forward(minutes=2)

    held = await house.reserve({tea.product_id: 4})
    with pytest.raises(OutOfStock):
        await house.reserve({tea.product_id: 1})

    assert held.lines[0].quantity == 4
    assert await shelves(house, tea.product_id) == {MAIN_WAREHOUSE: (1, 3), NORTH: (1, 1)}


async def test_a_late_payment_takes_what_is_elsewhere_first(house: House) -> None:
    tea = await house.product(backorder_limit=2)
    held = await house.reserve({tea.product_id: 2}, minutes=1)
    house.watch.forward(minutes=2)
    await house.sweep()
    await put_on_shelf(house, tea.product_id, NORTH, 2)

    await house.inventory.commit(ANYONE, held.reservation_id)

    assert await shelves(house, tea.product_id) == {MAIN_WAREHOUSE: (0, 0), NORTH: (2, 2)}
