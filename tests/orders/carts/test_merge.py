"""The contract suite of merged carts. It runs on each storage."""

from asyncio import gather
from uuid import UUID

import pytest
from dependency_injector import providers

from markethall.orders.carts.contract import (
    CartClosed,
    CartNotFound,
    CartPrecondition,
    CartStatus,
    CartView,
    MergeCart,
    TooManyCartLines,
)
from markethall.orders.contract import MAX_LINES, OrderCurrencyMismatch
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.errors import (
    PreconditionFailed,
    Unauthenticated,
    ValidationFailed,
)
from markethall.shared.kernel.ids import new_id
from tests.orders.carts.conftest import (
    ANY_VERSION,
    amounts,
    at_version,
    change_cart,
    check_out,
    create_cart,
    get_cart,
    guest_context,
    set_line,
)
from tests.orders.conftest import OrdersApp, attempt_without_key, user_context


async def merge(
    app: OrdersApp,
    target: CartView,
    source: CartView | UUID,
    token: UUID | str | None = None,
    precondition: CartPrecondition = ANY_VERSION,
) -> CartView:
    command = MergeCart(
        source_cart_id=source if isinstance(source, UUID) else source.cart_id,
        guest_token=str(token) if token else None,
    )
    return await app.container.cart_merges().merge(
        app.buyer, target.cart_id, command, precondition, attempt_without_key()
    )


@pytest.fixture
def guest(orders_app: OrdersApp) -> CallContext:
    guest = guest_context()
    actors = {str(ctx.user_id): ctx.actor for ctx in (guest, orders_app.buyer)}

    async def verify(token: str) -> Actor:
        """Accept the id of an actor as its access token."""
        if token not in actors:
            raise Unauthenticated(reason="invalid")
        return actors[token]

    orders_app.container.verify_access_token.override(providers.Object(verify))
    return guest


async def test_quantities_are_added_up_and_the_source_is_closed(
    orders_app: OrdersApp, guest: CallContext
) -> None:
    tea, cup = orders_app.fake_inventory.add_product(99), orders_app.fake_inventory.add_product(99)
    own = await create_cart(orders_app, (tea, 2))
    source = await create_cart(orders_app, (cup, 1), (tea, 3), ctx=guest)

    merged = await merge(orders_app, own, source, guest.user_id)

    assert (amounts(merged), merged.version) == ({tea: 5, cup: 1}, 2)
    assert await get_cart(orders_app, own) == merged
    closed = await get_cart(orders_app, source, guest)
    assert (closed.status, closed.merged_into) == (CartStatus.MERGED, own.cart_id)
    with pytest.raises(CartClosed) as raised:
        await check_out(orders_app, source, guest)
    assert raised.value.details["merged_into"] == str(own.cart_id)


async def test_quantity_has_a_limit(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5000)
    own = await create_cart(orders_app, (tea, 900))

    merged = await merge(orders_app, own, await create_cart(orders_app, (tea, 900)))

    assert amounts(merged) == {tea: 999}


async def test_fields_of_the_target_win(orders_app: OrdersApp) -> None:
    own = await create_cart(orders_app, note="mine", metadata={"a": "1"})
    source = await create_cart(
        orders_app,
        note="other",
        email="ada@example.com",
        shipping_address="Market 1",
        metadata={"a": "2", "b": "3"},
    )

    merged = await merge(orders_app, own, source)

    assert (merged.note, merged.email, merged.shipping_address) == (
        "mine",
        "ada@example.com",
        "Market 1",
    )
    assert merged.metadata == {"a": "1", "b": "3"}


async def test_merged_cart_has_at_most_50_entries_of_metadata(orders_app: OrdersApp) -> None:
    own = await create_cart(orders_app, metadata={f"own{n}": "x" for n in range(49)})
    source = await create_cart(orders_app, metadata={"own0": "y", "b": "2", "a": "1"})

    merged = await merge(orders_app, own, source)

    assert merged.metadata == {f"own{n}": "x" for n in range(49)} | {"a": "1"}


async def test_repeated_merge_changes_nothing(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(99)
    own, source = (
        await create_cart(orders_app, (tea, 2)),
        await create_cart(orders_app, (tea, 3)),
    )
    merged = await merge(orders_app, own, source)

    assert await merge(orders_app, own, source) == merged
    other = await create_cart(orders_app)
    with pytest.raises(CartClosed):
        await merge(orders_app, other, source)


async def test_concurrent_merges_add_the_lines_once(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(99)
    own, source = (
        await create_cart(orders_app, (tea, 2)),
        await create_cart(orders_app, (tea, 3)),
    )

    await gather(*(merge(orders_app, own, source) for _ in range(6)))

    assert amounts(await get_cart(orders_app, own)) == {tea: 5}


async def test_two_carts_merged_into_each_other_keep_all_units(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(99)
    one, other = (
        await create_cart(orders_app, (tea, 2)),
        await create_cart(orders_app, (tea, 3)),
    )

    results = await gather(
        merge(orders_app, one, other), merge(orders_app, other, one), return_exceptions=True
    )

    assert sorted(type(result).__name__ for result in results) == ["CartClosed", "CartView"]
    carts = [await get_cart(orders_app, cart) for cart in (one, other)]
    assert [amounts(cart) for cart in carts if cart.status is CartStatus.OPEN] == [{tea: 5}]


async def test_empty_source_is_closed_too(orders_app: OrdersApp) -> None:
    own, source = await create_cart(orders_app), await create_cart(orders_app)

    await merge(orders_app, own, source)

    assert (await get_cart(orders_app, source)).status is CartStatus.MERGED


async def test_carts_of_others_cannot_be_merged(orders_app: OrdersApp, guest: CallContext) -> None:
    stranger = user_context(new_id(), "customer")
    own = await create_cart(orders_app)
    of_stranger = await create_cart(orders_app, ctx=stranger)
    of_guest = await create_cart(orders_app, ctx=guest)

    for target, source, token in (
        (own, of_stranger, None),
        (own, of_stranger, guest.user_id),
        (own, of_guest, None),
        (of_stranger, own, None),
        (own, new_id(), None),
    ):
        with pytest.raises(CartNotFound):
            await merge(orders_app, target, source, token)


async def test_bad_tokens_and_the_same_cart_are_rejected(
    orders_app: OrdersApp, guest: CallContext
) -> None:
    own, source = await create_cart(orders_app), await create_cart(orders_app, ctx=guest)

    for other, token, field in (
        (source, "unknown", "/guest_token"),
        (source, orders_app.buyer.user_id, "/guest_token"),  # the token of a user
        (own, None, "/source_cart_id"),
    ):
        with pytest.raises(ValidationFailed) as raised:
            await merge(orders_app, own, other, token)
        assert raised.value.details["errors"][0]["field"] == field


async def test_merge_is_all_or_nothing(orders_app: OrdersApp) -> None:
    products = [orders_app.fake_inventory.add_product(5) for _ in range(MAX_LINES + 1)]
    full = await create_cart(orders_app, *((product_id, 1) for product_id in products[:-1]))
    one = await create_cart(orders_app, (products[-1], 1))
    yen = await create_cart(
        orders_app, (orders_app.fake_inventory.add_product(5, currency="JPY"), 1)
    )

    with pytest.raises(TooManyCartLines):
        await merge(orders_app, full, one)
    with pytest.raises(OrderCurrencyMismatch):
        await merge(orders_app, one, yen)
    with pytest.raises(PreconditionFailed):
        await merge(orders_app, one, await create_cart(orders_app), precondition=at_version(7))

    for cart in (full, one, yen):
        assert await get_cart(orders_app, cart) == cart


async def test_change_of_the_source_during_the_merge_is_not_lost(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(99)
    own, source = await create_cart(orders_app), await create_cart(orders_app, (tea, 1))

    results = await gather(
        merge(orders_app, own, source),
        set_line(orders_app, source, tea, 7),
        change_cart(orders_app, own, note="busy"),
        return_exceptions=True,
    )

    assert not isinstance(results[0], BaseException)
    units = amounts(await get_cart(orders_app, own))[tea]
    assert units == (1 if isinstance(results[1], CartClosed) else 7)
