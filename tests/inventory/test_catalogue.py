"""The contract suite of `Catalogue`. It runs on each storage."""

from asyncio import gather
from typing import Any

import pytest

from markethall.inventory.catalogue.contract.categories import CategoryQuery
from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.catalogue.contract.products import (
    NewProduct,
    Price,
    ProductChange,
    ProductView,
    SkuTaken,
)
from markethall.inventory.contract import OutOfStock, ProductNotFound
from markethall.inventory.search.contract import ProductQuery
from markethall.inventory.stock.contract import Adjustment, WarehouseNotFound, WouldGoNegative
from markethall.shared.idempotency.records import IdempotencyRecord
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.errors import (
    Forbidden,
    PreconditionFailed,
    Unauthenticated,
    ValidationFailed,
)
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery
from tests.inventory.conftest import ANYONE, PRESENT, STAFF, InventoryApp, consume_command, no_key


async def skus(inventory_app: InventoryApp, **query: Any) -> list[str]:
    """Read the product list in pages of two. Return the SKUs in list order."""
    found: list[str] = []
    cursor = None
    while True:
        page = await inventory_app.product_search.list_products(
            STAFF, ProductQuery.model_validate({"limit": 2, "cursor": cursor} | query)
        )
        found += [product.sku for product in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


# Reading


async def test_product_has_all_created_fields(inventory_app: InventoryApp) -> None:
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

    created = await inventory_app.catalogue.create(STAFF, command, no_key())
    read = await inventory_app.catalogue.get_product(ANYONE, created.product_id)

    assert created == read
    assert read.tags == ("green", "japan")
    assert read.model_dump(exclude={"product_id", "tags", "created_at", "updated_at"}) == {
        **command.model_dump(exclude={"tags"}),
        "available": 0,
        "version": 1,
        "status": "active",
    }


async def test_stored_json_equals_product(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(
        stock=3, category="tea", options={"weight": "100 g"}, tags=("a",)
    )

    rendered = await inventory_app.catalogue.render_product(ANYONE, tea.product_id)
    page = await inventory_app.product_search.render_product_page(ANYONE, ProductQuery())

    product = await inventory_app.catalogue.get_product(ANYONE, tea.product_id)
    assert ProductView.model_validate_json(rendered.body) == product
    assert Page[ProductView].model_validate_json(page.body).items == (product,)
    assert set(ProductView.model_fields) == set(product.model_dump(mode="json"))
    assert rendered.etag.startswith('"v1-')


async def test_etag_changes_with_stock_and_version(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=3)

    first = await inventory_app.catalogue.render_product(ANYONE, tea.product_id)
    again = await inventory_app.catalogue.render_product(ANYONE, tea.product_id)
    await inventory_app.reserve({tea.product_id: 1})
    sold = await inventory_app.catalogue.render_product(ANYONE, tea.product_id)
    renamed = await changed(inventory_app, tea, 1, name="Sencha")
    later = await inventory_app.catalogue.render_product(ANYONE, tea.product_id)

    assert first == again
    assert first.etag != sold.etag
    assert sold.etag.startswith('"v1-')
    assert renamed.version == 2
    assert later.etag.startswith('"v2-')


async def changed(
    inventory_app: InventoryApp, product: ProductView, version: int, **fields: Any
) -> ProductView:
    command = ProductChange.model_validate(fields)
    return await inventory_app.catalogue.change(STAFF, product.product_id, command, {version})


async def test_sku_lookup_ignores_case(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product("Tea-Sencha")

    found = await inventory_app.catalogue.get_product_by_sku(ANYONE, "tEA-sENCHA")
    body = await inventory_app.catalogue.render_product_by_sku(ANYONE, "TEA-SENCHA")

    assert found.product_id == tea.product_id
    assert ProductView.model_validate_json(body.body) == found
    with pytest.raises(ProductNotFound):
        await inventory_app.catalogue.get_product_by_sku(ANYONE, "TEA")


@pytest.mark.parametrize("status", ["draft", "archived"])
async def test_inactive_product_is_visible_to_staff_only(
    inventory_app: InventoryApp, status: str
) -> None:
    tea = await inventory_app.product("TEA", status=status)

    for ctx, error in ((ANYONE, Unauthenticated), (system_context("test"), Forbidden)):
        with pytest.raises(ProductNotFound):
            await inventory_app.catalogue.get_product(ctx, tea.product_id)
        with pytest.raises(ProductNotFound):
            await inventory_app.catalogue.get_product_by_sku(ctx, "TEA")
        with pytest.raises(ProductNotFound):
            await inventory_app.catalogue.render_product(ctx, tea.product_id)
        with pytest.raises(ProductNotFound):
            await inventory_app.catalogue.render_product_by_sku(ctx, "TEA")
        with pytest.raises(error):
            await inventory_app.product_search.render_product_page(
                ctx, ProductQuery(status=ProductStatus(status))
            )
    rendered = await inventory_app.catalogue.render_product(STAFF, tea.product_id)
    listed = await inventory_app.product_search.render_product_page(
        STAFF, ProductQuery(status=ProductStatus(status))
    )

    assert not rendered.is_public
    assert not listed.is_public
    assert ProductView.model_validate_json(rendered.body).status == status
    assert await skus(inventory_app) == []
    assert await skus(inventory_app, status=status) == ["TEA"]
    assert await inventory_app.catalogue.count() == 0


async def test_unknown_product_is_not_found(inventory_app: InventoryApp) -> None:
    product_id = new_id()

    with pytest.raises(ProductNotFound) as raised:
        await inventory_app.catalogue.render_product(ANYONE, product_id)

    assert raised.value.details == {"product_ids": [str(product_id)]}


async def test_read_after_change_is_never_stale(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)

    async def read() -> int:
        body = (await inventory_app.catalogue.render_product(ANYONE, tea.product_id)).body
        return ProductView.model_validate_json(body).available

    available = [await read()]
    held = await inventory_app.reserve({tea.product_id: 2})
    available.append(await read())
    await inventory_app.inventory.consume(
        ANYONE, consume_command(held.reservation_id, {tea.product_id: 1})
    )
    await inventory_app.inventory.release(ANYONE, held.reservation_id)
    available.append(await read())
    await inventory_app.reserve({tea.product_id: 4}, minutes=10)
    inventory_app.clock.advance(minutes=11)
    await inventory_app.run_periodic_jobs()
    available.append(await read())
    await inventory_app.adjust(tea.product_id, counted=9)
    available.append(await read())

    assert available == [5, 3, 4, 4, 9]


async def test_list_includes_new_and_changed_products_immediately(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product("TEA")

    async def listed() -> list[str]:
        body = (
            await inventory_app.product_search.render_product_page(
                ANYONE, ProductQuery(sort="name")
            )
        ).body
        return [product.name for product in Page[ProductView].model_validate_json(body).items]

    first = await listed()
    await inventory_app.product("CUP")
    await changed(inventory_app, tea, 1, name="Sencha")
    second = await listed()
    await inventory_app.catalogue.archive(STAFF, tea.product_id, {2})

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
async def test_pages_are_sorted_without_gaps(
    inventory_app: InventoryApp, sort: str, expected: list[str]
) -> None:
    for sku, name, amount in (
        ("A", "apple", 300), ("B", "Banana", 400), ("C", "cherry", 200), ("D", "Date", 500),
        ("E", "Elder", 100),
    ):  # fmt: skip
        await inventory_app.product(sku, name=name, price={"amount": amount, "currency": "EUR"})

    assert await skus(inventory_app, sort=sort) == expected


async def test_equal_sort_keys_lose_no_product(inventory_app: InventoryApp) -> None:
    created = [await inventory_app.product(f"S{i}") for i in range(7)]

    by_id = [product.sku for product in sorted(created, key=lambda p: p.product_id)]
    assert await skus(inventory_app, sort="price") == by_id
    assert await skus(inventory_app, sort="-price") == by_id[::-1]


async def test_pagination_is_stable_during_inserts(inventory_app: InventoryApp) -> None:
    for sku in ("A", "B", "C", "D"):
        await inventory_app.product(sku)
    first = await inventory_app.product_search.list_products(ANYONE, ProductQuery(limit=2))

    await inventory_app.product("E")
    second = await inventory_app.product_search.list_products(
        ANYONE, ProductQuery(limit=2, cursor=first.next_cursor)
    )

    assert [p.sku for p in (*first.items, *second.items)] == ["D", "C", "B", "A"]
    assert second.next_cursor is None


async def test_filters_narrow_the_list(inventory_app: InventoryApp) -> None:
    euro = {"currency": "EUR"}
    await inventory_app.product(
        "TEA-1", 3, name="Sencha 100% pure", category="tea", family="sencha", tags=("green",),
        price={"amount": 500, **euro},
    )  # fmt: skip
    await inventory_app.product(
        "TEA_2", 0, name="Sencha", category="tea", family="sencha", tags=("green", "big"),
        price={"amount": 900, **euro},
    )  # fmt: skip
    await inventory_app.product(
        "CUP-1", 1, name="Cup", category="cups", price={"amount": 1800, **euro}
    )
    held = {"TEA-1": 3}
    tea = await inventory_app.catalogue.get_product_by_sku(STAFF, "TEA-1")

    async def found(**query: Any) -> set[str]:
        return set(await skus(inventory_app, **query))

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
    await inventory_app.reserve({tea.product_id: held["TEA-1"]}, minutes=10)
    assert await found(in_stock=True) == {"CUP-1"}
    inventory_app.clock.advance(minutes=11)
    assert await found(in_stock=True) == {"TEA-1", "CUP-1"}


async def test_cursor_is_bound_to_its_list(inventory_app: InventoryApp) -> None:
    for _ in range(3):
        await inventory_app.product(category="tea")
    page = await inventory_app.product_search.list_products(ANYONE, ProductQuery(limit=1))
    cursor = page.next_cursor

    for query in (
        ProductQuery(cursor=cursor, sort="name"),
        ProductQuery(cursor=cursor, category=("tea",)),
        ProductQuery(cursor="nonsense"),
    ):
        with pytest.raises(CursorInvalid):
            await inventory_app.product_search.list_products(ANYONE, query)
        with pytest.raises(CursorInvalid):
            await inventory_app.product_search.render_product_page(ANYONE, query)
    with pytest.raises(CursorInvalid):
        await inventory_app.categories.list_categories(ANYONE, CategoryQuery(cursor=cursor))


# Changing


async def test_sku_is_unique_ignoring_case(inventory_app: InventoryApp) -> None:
    await inventory_app.product("TEA-1")
    cup = await inventory_app.product("CUP-1")

    with pytest.raises(SkuTaken) as raised:
        await inventory_app.product("tea-1")
    with pytest.raises(SkuTaken):
        await changed(inventory_app, cup, 1, sku="Tea-1")
    renamed = await changed(inventory_app, cup, 1, sku="cup-1")
    moved = await changed(inventory_app, cup, 2, sku="POT-1")
    await inventory_app.product("CUP-1")

    assert raised.value.details == {"sku": "tea-1"}
    assert (renamed.sku, moved.sku) == ("cup-1", "POT-1")


async def test_concurrent_creation_of_one_sku_creates_one_product(
    inventory_app: InventoryApp,
) -> None:
    results = await gather(
        *(inventory_app.product("TEA-1") for _ in range(10)), return_exceptions=True
    )

    assert sum(isinstance(result, ProductView) for result in results) == 1
    assert sum(isinstance(result, SkuTaken) for result in results) == 9


async def test_create_is_idempotent_by_id(inventory_app: InventoryApp) -> None:
    command = NewProduct(sku="TEA", name="Tea", price=Price(amount=1, currency="EUR"))
    product_id = new_id()

    first = await inventory_app.catalogue.create(STAFF, command, no_key(product_id))
    again = await inventory_app.catalogue.create(STAFF, command, no_key(product_id))

    assert first == again
    assert first.product_id == product_id


async def test_patch_keeps_absent_fields_and_null_clears(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(
        "TEA", description="Green.", category="tea", family="f", tags=("a",),
        options={"weight": "100 g", "colour": "green"}, attributes={"organic": True, "n": 1},
        images=("https://images.example/1.jpg",),
    )  # fmt: skip

    second = await changed(
        inventory_app, tea, 1, options={"weight": "50 g", "colour": None, "cut": "fine"},
        attributes={"n": None, "origin": "Uji"}, price={"amount": 5, "currency": "JPY"},
        status="draft",
    )  # fmt: skip
    third = await changed(
        inventory_app, tea, 2, description=None, category=None, family=None, tags=None, images=None,
        options=None, attributes=None,
    )  # fmt: skip

    assert second.options == {"weight": "50 g", "cut": "fine"}
    assert second.attributes == {"organic": True, "origin": "Uji"}
    assert second.price == Money(amount=5, currency="JPY")
    assert (second.status, second.version, second.description) == ("draft", 2, "Green.")
    assert (third.description, third.category, third.family) == ("", None, None)
    assert (third.tags, third.images, third.options, third.attributes) == ((), (), {}, {})
    assert third == await inventory_app.catalogue.get_product(STAFF, tea.product_id)
    assert third.updated_at > tea.updated_at == tea.created_at


async def test_no_op_patch_keeps_version(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product("TEA", stock=2, tags=("a",))

    same = await changed(inventory_app, tea, 1, sku="TEA", tags=["a"], options={"not there": None})

    assert (same.version, same.available) == (1, 2)


async def test_stale_version_is_rejected(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product()
    await changed(inventory_app, tea, 1, name="Sencha")

    with pytest.raises(PreconditionFailed) as raised:
        await changed(inventory_app, tea, 1, name="Gyokuro")
    with pytest.raises(PreconditionFailed):
        await inventory_app.catalogue.archive(STAFF, tea.product_id, {1})
    with pytest.raises(ProductNotFound):
        await inventory_app.catalogue.archive(STAFF, new_id(), {1})

    assert raised.value.details == {"etag": '"v2"'}


async def test_one_of_concurrent_patches_to_a_version_wins(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product()

    results = await gather(
        *(changed(inventory_app, tea, 1, name=f"Tea {i}") for i in range(10)),
        return_exceptions=True,
    )

    assert sum(isinstance(result, ProductView) for result in results) == 1
    assert sum(isinstance(result, PreconditionFailed) for result in results) == 9


async def test_option_count_is_limited_across_patches(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(options={f"o{i}": "x" for i in range(10)})

    with pytest.raises(ValidationFailed) as raised:
        await changed(inventory_app, tea, 1, options={"one more": "x"})

    assert raised.value.details["errors"][0]["field"] == "/options"


async def test_archived_product_cannot_be_reserved(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)

    await inventory_app.catalogue.archive(STAFF, tea.product_id, {1})
    await inventory_app.catalogue.archive(STAFF, tea.product_id, {2})

    with pytest.raises(ProductNotFound):
        await inventory_app.reserve({tea.product_id: 1})
    assert (await inventory_app.catalogue.get_product(STAFF, tea.product_id)).version == 2


# Stock


async def test_stock_changes_are_recorded_in_append_only_ledger(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product()

    changes: tuple[dict[str, Any], ...] = (
        {"delta": 10, "reason": "received", "note": "pallet 7"},
        {"delta": -2, "reason": "damaged"},
        {"counted": 9, "reason": "counted"},
        {"counted": 9, "reason": "counted"},
    )

    for fields in changes:
        await inventory_app.adjust(tea.product_id, **fields)

    pages = [
        await inventory_app.stockroom.list_movements(STAFF, tea.product_id, PageQuery(limit=3))
    ]
    pages.append(
        await inventory_app.stockroom.list_movements(
            STAFF, tea.product_id, PageQuery(limit=3, cursor=pages[0].next_cursor)
        )
    )
    ledger = [(m.delta, m.on_hand_after, m.reason) for page in pages for m in page.items]
    assert ledger == [
        (0, 9, "counted"), (1, 9, "counted"), (-2, 8, "damaged"), (10, 10, "received"),
    ]  # fmt: skip
    assert pages[1].items[-1].note == "pallet 7"
    assert pages[1].items[-1].actor == STAFF.actor.audit_name
    assert pages[1].next_cursor is None
    assert await inventory_app.main_stock(tea.product_id) == (9, 0)


async def test_on_hand_never_falls_below_reserved(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    await inventory_app.reserve({tea.product_id: 3})

    for fields in ({"delta": -3}, {"counted": 2}, {"delta": -6}):
        with pytest.raises(WouldGoNegative) as raised:
            await inventory_app.adjust(tea.product_id, "lost", **fields)
        assert raised.value.details == {"on_hand": 5, "reserved": 3}
    await inventory_app.adjust(tea.product_id, "lost", delta=-2)

    assert await inventory_app.main_stock(tea.product_id) == (3, 3)


async def test_expired_reservations_do_not_block_a_count(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    await inventory_app.reserve({tea.product_id: 3}, minutes=10)
    inventory_app.clock.advance(minutes=11)

    await inventory_app.adjust(tea.product_id, "counted", counted=1)

    assert await inventory_app.main_stock(tea.product_id) == (1, 0)


async def test_adjustment_is_idempotent_by_id(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product()
    command = Adjustment(delta=5, reason="received")
    attempt = no_key()

    results = await gather(
        *(
            inventory_app.stockroom.adjust(STAFF, tea.product_id, command, attempt)
            for _ in range(10)
        )
    )

    assert all(result == results[0] for result in results)
    assert results[0].movement_id == attempt.id
    assert await inventory_app.main_stock(tea.product_id) == (5, 0)
    assert (
        await inventory_app.stockroom.get_movement(STAFF, tea.product_id, attempt.id) == results[0]
    )


async def test_response_is_stored_with_the_change(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product()
    records = inventory_app.container.persistence().idempotency_store
    attempt = no_key()
    attempt = type(attempt)("scope", attempt.id, attempt.retention, PRESENT)
    now = inventory_app.clock()
    record = IdempotencyRecord(scope="scope", request_hash="hash", id=attempt.id, lease_until=now)
    await records.claim(record, now)

    movement = await inventory_app.stockroom.adjust(
        STAFF, tea.product_id, Adjustment(delta=5, reason="received"), attempt
    )

    stored = await records.claim(record, now)
    assert stored is not None
    assert stored.response == PRESENT(movement)


@pytest.mark.parametrize("fields", [{}, {"delta": 1, "counted": 1}, {"delta": 0}])
async def test_adjustment_requires_exactly_one_of_delta_and_counted(
    inventory_app: InventoryApp, fields: dict[str, Any]
) -> None:
    tea = await inventory_app.product()

    with pytest.raises(ValidationFailed):
        await inventory_app.adjust(tea.product_id, **fields)


async def test_unknown_stock_row_is_rejected(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product()

    with pytest.raises(WarehouseNotFound):
        await inventory_app.adjust(tea.product_id, delta=1, warehouse_id=str(new_id()))
    with pytest.raises(ProductNotFound):
        await inventory_app.adjust(new_id(), delta=1)
    with pytest.raises(ProductNotFound):
        await inventory_app.stockroom.get_stock(STAFF, new_id())
    with pytest.raises(ProductNotFound):
        await inventory_app.stockroom.list_movements(STAFF, new_id(), PageQuery())

    assert (
        await inventory_app.stockroom.list_movements(STAFF, tea.product_id, PageQuery())
    ).items == ()


async def test_stock_and_product_availability_agree(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=9)
    await inventory_app.reserve({tea.product_id: 2}, minutes=10)
    await inventory_app.reserve({tea.product_id: 3}, minutes=60)
    inventory_app.clock.advance(minutes=11)

    stock = await inventory_app.stockroom.get_stock(STAFF, tea.product_id)

    level = stock.warehouses[0]
    assert (level.on_hand, level.reserved, level.available, stock.available) == (9, 5, 6, 6)
    assert await inventory_app.available(tea.product_id) == 6


async def test_concurrent_adjustments_and_reservations_keep_invariants(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=10)

    results = await gather(
        *(inventory_app.reserve({tea.product_id: 1}) for _ in range(20)),
        *(inventory_app.adjust(tea.product_id, "lost", delta=-1) for _ in range(20)),
        *(inventory_app.adjust(tea.product_id, "found", delta=1) for _ in range(10)),
        return_exceptions=True,
    )

    assert all(
        isinstance(result, OutOfStock | WouldGoNegative)
        for result in results
        if isinstance(result, BaseException)
    )
    page = await inventory_app.stockroom.list_movements(STAFF, tea.product_id, PageQuery(limit=100))
    on_hand, reserved = await inventory_app.main_stock(tea.product_id)
    assert on_hand == sum(movement.delta for movement in page.items)
    assert 0 <= reserved <= on_hand
    ledger = [(movement.delta, movement.on_hand_after) for movement in reversed(page.items)]
    balance = 0
    for delta, after in ledger:
        balance += delta
        assert after == balance
