"""Every implementation of Catalogue keeps these promises."""

from asyncio import gather
from typing import Any

import pytest

from markethall.inventory.contract import (
    Adjustment,
    CategoryQuery,
    NewProduct,
    OutOfStock,
    Price,
    Product,
    ProductChange,
    ProductNotFound,
    ProductQuery,
    ProductStatus,
    SkuTaken,
    WarehouseNotFound,
    WouldGoNegative,
)
from markethall.shared.call import system_call
from markethall.shared.errors import Forbidden, Invalid, PreconditionFailed, Unauthenticated
from markethall.shared.idempotency import Claim
from markethall.shared.ids import new_id
from markethall.shared.money import Money
from markethall.shared.pages import CursorInvalid, Page, PageQuery
from tests.inventory.conftest import ANYONE, PRESENT, STAFF, House, leaving, no_key


async def skus(house: House, **query: Any) -> list[str]:
    """What the list gives, read in pages of two."""
    found: list[str] = []
    cursor = None
    while True:
        page = await house.catalogue.products(
            STAFF, ProductQuery.model_validate({"limit": 2, "cursor": cursor} | query)
        )
        found += [product.sku for product in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


# Reading


async def test_a_product_has_all_that_it_was_made_with(house: House) -> None:
    command = NewProduct(
        sku="TEA-1",
        name='Sencha "Uji", 100 g — 煎茶',
        description="Line one\nline two \\ \u2028 end",
        price=Price(amount=1250, currency="EUR"),
        category="tea",
        family="sencha",
        options={"weight": "100 g", "a": "b"},
        tags=("green", "japan", "green"),
        images=("https://images.example/sencha.jpg",),
        attributes={"organic": True, "pages": 12, "origin": 'Uji "Kyoto"', "no": False},
    )

    made = await house.catalogue.create(STAFF, command, no_key())
    read = await house.catalogue.product(ANYONE, made.product_id)

    assert made == read
    assert read.tags == ("green", "japan")
    assert read.model_dump(exclude={"product_id", "tags", "created_at", "updated_at"}) == {
        **command.model_dump(exclude={"tags"}),
        "available": 0,
        "version": 1,
        "status": "active",
    }


async def test_the_ready_made_json_is_the_product(house: House) -> None:
    tea = await house.product(stock=3, category="tea", options={"weight": "100 g"}, tags=("a",))

    rendered = await house.catalogue.product_body(ANYONE, tea.product_id)
    page = await house.catalogue.page_body(ANYONE, ProductQuery())

    product = await house.catalogue.product(ANYONE, tea.product_id)
    assert Product.model_validate_json(rendered.body) == product
    assert Page[Product].model_validate_json(page.body).items == (product,)
    assert set(Product.model_fields) == set(product.model_dump(mode="json"))
    assert rendered.etag.startswith('"v1-')


async def test_the_tag_tells_stock_from_version(house: House) -> None:
    tea = await house.product(stock=3)

    first = await house.catalogue.product_body(ANYONE, tea.product_id)
    again = await house.catalogue.product_body(ANYONE, tea.product_id)
    await house.reserve({tea.product_id: 1})
    sold = await house.catalogue.product_body(ANYONE, tea.product_id)
    renamed = await changed(house, tea, 1, name="Sencha")
    later = await house.catalogue.product_body(ANYONE, tea.product_id)

    assert first == again
    assert first.etag != sold.etag
    assert sold.etag.startswith('"v1-')
    assert renamed.version == 2
    assert later.etag.startswith('"v2-')


async def changed(house: House, product: Product, version: int, **fields: Any) -> Product:
    command = ProductChange.model_validate(fields)
    return await house.catalogue.change(STAFF, product.product_id, command, {version})


async def test_a_product_is_found_by_its_sku_whatever_the_case(house: House) -> None:
    tea = await house.product("Tea-Sencha")

    found = await house.catalogue.product_by_sku(ANYONE, "tEA-sENCHA")
    body = await house.catalogue.sku_body(ANYONE, "TEA-SENCHA")

    assert found.product_id == tea.product_id
    assert Product.model_validate_json(body.body) == found
    with pytest.raises(ProductNotFound):
        await house.catalogue.product_by_sku(ANYONE, "TEA")


@pytest.mark.parametrize("status", ["draft", "archived"])
async def test_what_is_not_active_is_for_staff_only(house: House, status: str) -> None:
    tea = await house.product("TEA", status=status)

    for call, no in ((ANYONE, Unauthenticated), (system_call("test"), Forbidden)):
        with pytest.raises(ProductNotFound):
            await house.catalogue.product(call, tea.product_id)
        with pytest.raises(ProductNotFound):
            await house.catalogue.product_by_sku(call, "TEA")
        with pytest.raises(ProductNotFound):
            await house.catalogue.product_body(call, tea.product_id)
        with pytest.raises(ProductNotFound):
            await house.catalogue.sku_body(call, "TEA")
        with pytest.raises(no):
            await house.catalogue.page_body(call, ProductQuery(status=ProductStatus(status)))
    seen = await house.catalogue.product_body(STAFF, tea.product_id)
    listed = await house.catalogue.page_body(STAFF, ProductQuery(status=ProductStatus(status)))

    assert not seen.public
    assert not listed.public
    assert Product.model_validate_json(seen.body).status == status
    assert await skus(house) == []
    assert await skus(house, status=status) == ["TEA"]
    assert await house.catalogue.count() == 0


async def test_an_unknown_product_is_not_found(house: House) -> None:
    product_id = new_id()

    with pytest.raises(ProductNotFound) as refusal:
        await house.catalogue.product_body(ANYONE, product_id)

    assert refusal.value.details == {"product_ids": [str(product_id)]}


async def test_what_a_buyer_reads_is_never_older_than_the_last_change(house: House) -> None:
    tea = await house.product(stock=5)

    async def read() -> int:
        body = (await house.catalogue.product_body(ANYONE, tea.product_id)).body
        return Product.model_validate_json(body).available

    seen = [await read()]
    held = await house.reserve({tea.product_id: 2})
    seen.append(await read())
    await house.inventory.consume(ANYONE, leaving(held.reservation_id, {tea.product_id: 1}))
    await house.inventory.release(ANYONE, held.reservation_id)
    seen.append(await read())
    await house.reserve({tea.product_id: 4}, minutes=10)
    house.watch.forward(minutes=11)
    await house.sweep()
    seen.append(await read())
    await house.adjust(tea.product_id, counted=9)
    seen.append(await read())

    assert seen == [5, 3, 4, 4, 9]


async def test_a_new_product_and_a_changed_one_are_in_the_list_at_once(house: House) -> None:
    tea = await house.product("TEA")

    async def listed() -> list[str]:
        body = (await house.catalogue.page_body(ANYONE, ProductQuery(sort="name"))).body
        return [product.name for product in Page[Product].model_validate_json(body).items]

    first = await listed()
    await house.product("CUP")
    await changed(house, tea, 1, name="Sencha")
    second = await listed()
    await house.catalogue.archive(STAFF, tea.product_id, {2})

    assert (first, second, await listed()) == (["Tea"], ["Cup", "Sencha"], ["Cup"])


# Lists


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("name", ["A", "B", "C", "D", "E"]),
        ("price", ["E", "C", "A", "B", "D"]),
        ("-price", ["D", "B", "A", "C", "E"]),
        ("-created_at", ["E", "D", "C", "B", "A"]),
    ],
)
async def test_a_list_is_sorted_and_its_pages_join_without_gap(
    house: House, sort: str, expected: list[str]
) -> None:
    for sku, name, amount in (
        ("A", "apple", 300), ("B", "Banana", 400), ("C", "cherry", 200), ("D", "Date", 500),
        ("E", "Elder", 100),
    ):  # fmt: skip
        await house.product(sku, name=name, price={"amount": amount, "currency": "EUR"})

    assert await skus(house, sort=sort) == expected


async def test_equal_prices_do_not_lose_a_product(house: House) -> None:
    made = [await house.product(f"S{i}") for i in range(7)]

    by_id = [product.sku for product in sorted(made, key=lambda p: p.product_id)]
    assert await skus(house, sort="price") == by_id
    assert await skus(house, sort="-price") == by_id[::-1]


async def test_a_list_stays_in_step_while_products_are_added(house: House) -> None:
    for sku in ("A", "B", "C", "D"):
        await house.product(sku)
    first = await house.catalogue.products(ANYONE, ProductQuery(limit=2))

    await house.product("E")
    second = await house.catalogue.products(ANYONE, ProductQuery(limit=2, cursor=first.next_cursor))

    assert [p.sku for p in (*first.items, *second.items)] == ["D", "C", "B", "A"]
    assert second.next_cursor is None


async def test_filters_narrow_the_list(house: House) -> None:
    euro = {"currency": "EUR"}
    await house.product(
        "TEA-1", 3, name="Sencha 100% pure", category="tea", family="sencha", tags=("green",),
        price={"amount": 500, **euro},
    )  # fmt: skip
    await house.product(
        "TEA_2", 0, name="Sencha", category="tea", family="sencha", tags=("green", "big"),
        price={"amount": 900, **euro},
    )  # fmt: skip
    await house.product("CUP-1", 1, name="Cup", category="cups", price={"amount": 1800, **euro})
    held = {"TEA-1": 3}
    tea = await house.catalogue.product_by_sku(STAFF, "TEA-1")

    async def found(**query: Any) -> set[str]:
        return set(await skus(house, **query))

    assert await found(category="tea") == {"TEA-1", "TEA_2"}
    assert await found(family="sencha", tag="big") == {"TEA_2"}
    assert await found(tag="green") == {"TEA-1", "TEA_2"}
    assert await found(min_price=500, max_price=900) == {"TEA-1", "TEA_2"}
    assert await found(min_price=901) == {"CUP-1"}
    assert await found(in_stock=True) == {"TEA-1", "CUP-1"}
    assert await found(in_stock=False) == {"TEA_2"}
    assert await found(q="SENCHA") == {"TEA-1", "TEA_2"}
    assert await found(q="100%") == {"TEA-1"}
    assert await found(q="tea_") == {"TEA_2"}
    assert await found(q="\\") == set()
    assert await found(category="tea", in_stock=True, sort="price") == {"TEA-1"}
    await house.reserve({tea.product_id: held["TEA-1"]}, minutes=10)
    assert await found(in_stock=True) == {"CUP-1"}
    house.watch.forward(minutes=11)
    assert await found(in_stock=True) == {"TEA-1", "CUP-1"}


async def test_a_cursor_is_good_for_its_own_list_only(house: House) -> None:
    for _ in range(3):
        await house.product(category="tea")
    page = await house.catalogue.products(ANYONE, ProductQuery(limit=1))
    cursor = page.next_cursor

    for query in (
        ProductQuery(cursor=cursor, sort="name"),
        ProductQuery(cursor=cursor, category="tea"),
        ProductQuery(cursor="nonsense"),
    ):
        with pytest.raises(CursorInvalid):
            await house.catalogue.products(ANYONE, query)
        with pytest.raises(CursorInvalid):
            await house.catalogue.page_body(ANYONE, query)
    with pytest.raises(CursorInvalid):
        await house.categories.categories(ANYONE, CategoryQuery(cursor=cursor))


# Changing


async def test_a_sku_is_taken_whatever_the_case(house: House) -> None:
    await house.product("TEA-1")
    cup = await house.product("CUP-1")

    with pytest.raises(SkuTaken) as refusal:
        await house.product("tea-1")
    with pytest.raises(SkuTaken):
        await changed(house, cup, 1, sku="Tea-1")
    renamed = await changed(house, cup, 1, sku="cup-1")
    moved = await changed(house, cup, 2, sku="POT-1")
    await house.product("CUP-1")

    assert refusal.value.details == {"sku": "tea-1"}
    assert (renamed.sku, moved.sku) == ("cup-1", "POT-1")


async def test_one_sku_made_many_times_at_once_is_made_once(house: House) -> None:
    results = await gather(*(house.product("TEA-1") for _ in range(10)), return_exceptions=True)

    assert sum(isinstance(result, Product) for result in results) == 1
    assert sum(isinstance(result, SkuTaken) for result in results) == 9


async def test_creating_twice_under_one_id_is_creating_once(house: House) -> None:
    command = NewProduct(sku="TEA", name="Tea", price=Price(amount=1, currency="EUR"))
    product_id = new_id()

    first = await house.catalogue.create(STAFF, command, no_key(product_id))
    again = await house.catalogue.create(STAFF, command, no_key(product_id))

    assert first == again
    assert first.product_id == product_id


async def test_a_patch_changes_what_it_names_and_null_clears(house: House) -> None:
    tea = await house.product(
        "TEA", description="Green.", category="tea", family="f", tags=("a",),
        options={"weight": "100 g", "colour": "green"}, attributes={"organic": True, "n": 1},
        images=("https://images.example/1.jpg",),
    )  # fmt: skip

    second = await changed(
        house, tea, 1, options={"weight": "50 g", "colour": None, "cut": "fine"},
        attributes={"n": None, "origin": "Uji"}, price={"amount": 5, "currency": "JPY"},
        status="draft",
    )  # fmt: skip
    third = await changed(
        house, tea, 2, description=None, category=None, family=None, tags=None, images=None,
        options=None, attributes=None,
    )  # fmt: skip

    assert second.options == {"weight": "50 g", "cut": "fine"}
    assert second.attributes == {"organic": True, "origin": "Uji"}
    assert second.price == Money(amount=5, currency="JPY")
    assert (second.status, second.version, second.description) == ("draft", 2, "Green.")
    assert (third.description, third.category, third.family) == ("", None, None)
    assert (third.tags, third.images, third.options, third.attributes) == ((), (), {}, {})
    assert third == await house.catalogue.product(STAFF, tea.product_id)
    assert third.updated_at > tea.updated_at == tea.created_at


async def test_a_patch_that_changes_nothing_makes_no_new_version(house: House) -> None:
    tea = await house.product("TEA", stock=2, tags=("a",))

    same = await changed(house, tea, 1, sku="TEA", tags=["a"], options={"not there": None})

    assert (same.version, same.available) == (1, 2)


async def test_a_stale_version_is_refused(house: House) -> None:
    tea = await house.product()
    await changed(house, tea, 1, name="Sencha")

    with pytest.raises(PreconditionFailed) as refusal:
        await changed(house, tea, 1, name="Gyokuro")
    with pytest.raises(PreconditionFailed):
        await house.catalogue.archive(STAFF, tea.product_id, {1})
    with pytest.raises(ProductNotFound):
        await house.catalogue.archive(STAFF, new_id(), {1})

    assert refusal.value.details == {"etag": '"v2"'}


async def test_one_of_many_patches_of_a_version_wins(house: House) -> None:
    tea = await house.product()

    results = await gather(
        *(changed(house, tea, 1, name=f"Tea {i}") for i in range(10)), return_exceptions=True
    )

    assert sum(isinstance(result, Product) for result in results) == 1
    assert sum(isinstance(result, PreconditionFailed) for result in results) == 9


async def test_options_cannot_grow_without_bound_by_patches(house: House) -> None:
    tea = await house.product(options={f"o{i}": "x" for i in range(10)})

    with pytest.raises(Invalid) as refusal:
        await changed(house, tea, 1, options={"one more": "x"})

    assert refusal.value.details["errors"][0]["field"] == "/options"


async def test_an_archived_product_is_sold_no_more(house: House) -> None:
    tea = await house.product(stock=5)

    await house.catalogue.archive(STAFF, tea.product_id, {1})
    await house.catalogue.archive(STAFF, tea.product_id, {2})

    with pytest.raises(ProductNotFound):
        await house.reserve({tea.product_id: 1})
    assert (await house.catalogue.product(STAFF, tea.product_id)).version == 2


# Stock


async def test_stock_changes_by_movements_that_stay_in_a_ledger(house: House) -> None:
    tea = await house.product()

    changes: tuple[dict[str, Any], ...] = (
        {"delta": 10, "reason": "received", "note": "pallet 7"},
        {"delta": -2, "reason": "damaged"},
        {"counted": 9, "reason": "counted"},
        {"counted": 9, "reason": "counted"},
    )

    for fields in changes:
        await house.adjust(tea.product_id, **fields)

    pages = [await house.stockroom.movements(STAFF, tea.product_id, PageQuery(limit=3))]
    pages.append(
        await house.stockroom.movements(
            STAFF, tea.product_id, PageQuery(limit=3, cursor=pages[0].next_cursor)
        )
    )
    ledger = [(m.delta, m.on_hand_after, m.reason) for page in pages for m in page.items]
    assert ledger == [
        (0, 9, "counted"), (1, 9, "counted"), (-2, 8, "damaged"), (10, 10, "received"),
    ]  # fmt: skip
    assert pages[1].items[-1].note == "pallet 7"
    assert pages[1].items[-1].actor == STAFF.actor.known_as
    assert pages[1].next_cursor is None
    assert await house.shelf(tea.product_id) == (9, 0)


async def test_no_less_is_on_hand_than_is_reserved(house: House) -> None:
    tea = await house.product(stock=5)
    await house.reserve({tea.product_id: 3})

    for fields in ({"delta": -3}, {"counted": 2}, {"delta": -6}):
        with pytest.raises(WouldGoNegative) as refusal:
            await house.adjust(tea.product_id, "lost", **fields)
        assert refusal.value.details == {"on_hand": 5, "reserved": 3}
    await house.adjust(tea.product_id, "lost", delta=-2)

    assert await house.shelf(tea.product_id) == (3, 3)


async def test_expired_holds_do_not_stand_in_the_way_of_a_count(house: House) -> None:
    tea = await house.product(stock=5)
    await house.reserve({tea.product_id: 3}, minutes=10)
    house.watch.forward(minutes=11)

    await house.adjust(tea.product_id, "counted", counted=1)

    assert await house.shelf(tea.product_id) == (1, 0)


async def test_an_adjustment_repeated_under_its_id_is_made_once(house: House) -> None:
    tea = await house.product()
    command = Adjustment(delta=5, reason="received")
    attempt = no_key()

    results = await gather(
        *(house.stockroom.adjust(STAFF, tea.product_id, command, attempt) for _ in range(10))
    )

    assert all(result == results[0] for result in results)
    assert results[0].movement_id == attempt.id
    assert await house.shelf(tea.product_id) == (5, 0)
    assert await house.stockroom.movement(STAFF, tea.product_id, attempt.id) == results[0]


async def test_the_answer_is_kept_with_the_effect(house: House) -> None:
    tea = await house.product()
    claims = house.container.backend().claims
    attempt = no_key()
    attempt = type(attempt)("scope", attempt.id, attempt.kept_for, PRESENT)
    now = house.watch()
    claim = Claim(scope="scope", request_hash="hash", id=attempt.id, lease_until=now)
    await claims.claim(claim, now)

    movement = await house.stockroom.adjust(
        STAFF, tea.product_id, Adjustment(delta=5, reason="received"), attempt
    )

    standing = await claims.claim(claim, now)
    assert standing is not None
    assert standing.answer == PRESENT(movement)


@pytest.mark.parametrize("fields", [{}, {"delta": 1, "counted": 1}, {"delta": 0}])
async def test_an_adjustment_says_exactly_one_thing(house: House, fields: dict[str, Any]) -> None:
    tea = await house.product()

    with pytest.raises(Invalid):
        await house.adjust(tea.product_id, **fields)


async def test_only_known_shelves_are_adjusted_and_shown(house: House) -> None:
    tea = await house.product()

    with pytest.raises(WarehouseNotFound):
        await house.adjust(tea.product_id, delta=1, warehouse_id=str(new_id()))
    with pytest.raises(ProductNotFound):
        await house.adjust(new_id(), delta=1)
    with pytest.raises(ProductNotFound):
        await house.stockroom.stock(STAFF, new_id())
    with pytest.raises(ProductNotFound):
        await house.stockroom.movements(STAFF, new_id(), PageQuery())

    assert (await house.stockroom.movements(STAFF, tea.product_id, PageQuery())).items == ()


async def test_stock_and_available_tell_the_same_story(house: House) -> None:
    tea = await house.product(stock=9)
    await house.reserve({tea.product_id: 2}, minutes=10)
    await house.reserve({tea.product_id: 3}, minutes=60)
    house.watch.forward(minutes=11)

    stock = await house.stockroom.stock(STAFF, tea.product_id)

    level = stock.warehouses[0]
    assert (level.on_hand, level.reserved, level.available, stock.available) == (9, 5, 6, 6)
    assert await house.available(tea.product_id) == 6


async def test_adjustments_and_buyers_at_once_keep_the_books(house: House) -> None:
    tea = await house.product(stock=10)

    results = await gather(
        *(house.reserve({tea.product_id: 1}) for _ in range(20)),
        *(house.adjust(tea.product_id, "lost", delta=-1) for _ in range(20)),
        *(house.adjust(tea.product_id, "found", delta=1) for _ in range(10)),
        return_exceptions=True,
    )

    assert all(
        isinstance(result, OutOfStock | WouldGoNegative)
        for result in results
        if isinstance(result, BaseException)
    )
    page = await house.stockroom.movements(STAFF, tea.product_id, PageQuery(limit=100))
    on_hand, reserved = await house.shelf(tea.product_id)
    assert on_hand == sum(movement.delta for movement in page.items)
    assert 0 <= reserved <= on_hand
    chain = [(movement.delta, movement.on_hand_after) for movement in reversed(page.items)]
    balance = 0
    for delta, after in chain:
        balance += delta
        assert after == balance
