"""Lookups of orders by number and e-mail address, on each storage."""

from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from markethall.orders.container import LOOKUPS_PER_EMAIL
from markethall.orders.contract import LookUpOrder, OrderLinkRequested, OrderView
from markethall.orders.service.order_lookups import OrderLinks, OrderLookupService
from markethall.shared.http.identity_limiter import IdentityLimiter
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import TooManyRequests
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.redis_client import RedisClient
from tests.orders.conftest import OrdersApp

ANYONE = CallContext(request_id="test")


async def look_up(orders_app: OrdersApp, number: str, email: str) -> None:
    command = LookUpOrder(number=number, email=email)
    await orders_app.container.order_lookups().request(ANYONE, command)


async def links_after(orders_app: OrdersApp, number: str, email: str) -> list[str]:
    """Look up an order, process the events, and return the links in the log."""
    await look_up(orders_app, number, email)
    with capture_logs() as lines:
        await orders_app.process_events()
    return [line["link"] for line in lines if line["event"] == "order.link_issued"]


def link_to(order: OrderView) -> str:
    return f"#order_id={order.order_id}&order_token=token-of-{order.order_id}"


async def test_number_and_address_of_an_order_give_a_link_to_it(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.stock_up(), email="ada@example.com")
    other = await orders_app.place(orders_app.stock_up(), email="ada@example.com")

    assert await links_after(orders_app, order.number, "ada@example.com") == [link_to(order)]
    assert await links_after(orders_app, other.number, "Ada@Example.com") == [link_to(other)]
    assert await links_after(orders_app, "mh-1001", "ada@example.com") == [link_to(order)]


async def test_order_of_a_user_is_found_by_the_address_of_the_account(
    orders_app: OrdersApp,
) -> None:
    order = await orders_app.place(orders_app.stock_up())

    assert await links_after(orders_app, order.number, "user@example.com") == [link_to(order)]


async def test_wrong_number_or_address_gives_no_link(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.stock_up(), email="ada@example.com")
    number = order.number.removeprefix("MH-")
    elsewhere = [f"MH-{int(number) + 1}", f"XY-{number}", number]

    found = [await links_after(orders_app, wrong, "ada@example.com") for wrong in elsewhere]
    found.append(await links_after(orders_app, order.number, "eve@example.com"))

    assert found == [[], [], [], []]


async def test_lookup_stores_the_same_for_every_number(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.stock_up(), email="ada@example.com")
    await orders_app.process_events()

    await look_up(orders_app, order.number, "ada@example.com")
    await look_up(orders_app, "MH-99999", "ada@example.com")
    await orders_app.relay()
    deliveries = await orders_app.claim()

    assert [delivery.handler for delivery in deliveries] == ["orders.on_order_lookup_requested"] * 2


async def test_link_goes_to_the_address_of_the_order_not_to_that_of_the_lookup(
    orders_app: OrdersApp,
) -> None:
    order = await orders_app.place(orders_app.stock_up(), email="ada@example.com")
    await orders_app.process_events()

    await look_up(orders_app, order.number, "ADA@example.com")
    await orders_app.relay()
    (delivery,) = await orders_app.claim()
    await orders_app.handle(delivery)
    await orders_app.relay()
    (found,) = await orders_app.claim()

    event = found.envelope.decode()
    assert isinstance(event, OrderLinkRequested)
    assert (event.email, event.number) == ("ada@example.com", order.number)
    assert (event.order_id, event.owner_id) == (order.order_id, orders_app.buyer.user_id)
    assert "token" not in found.envelope.payload


async def test_repeated_delivery_requests_one_link(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.stock_up(), email="ada@example.com")
    await orders_app.process_events()

    await look_up(orders_app, order.number, "ada@example.com")
    with capture_logs() as lines:
        await orders_app.process_events(times=2)

    sent = {line["link"] for line in lines if line["event"] == "order.link_issued"}
    assert sent == {link_to(order)}


async def test_owner_with_a_disabled_account_gets_no_link(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.stock_up(), email="ada@example.com")
    orders_app.fake_users.disabled.add(orders_app.buyer.user_id)

    assert await links_after(orders_app, order.number, "ada@example.com") == []


async def test_link_is_made_when_users_is_available_again(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.stock_up(), email="ada@example.com")
    await orders_app.process_events()
    orders_app.call_failures.fail_call(1, "before")

    during = await links_after(orders_app, order.number, "ada@example.com")
    orders_app.advance_clock(timedelta(seconds=2))
    with capture_logs() as lines:
        await orders_app.process_events()

    assert during == []
    assert [line["link"] for line in lines if "link" in line] == [link_to(order)]


async def test_lookups_with_one_address_are_limited_whether_it_has_orders_or_not(
    orders_app: OrdersApp,
) -> None:
    order = await orders_app.place(orders_app.stock_up(), email="ada@example.com")
    limiter = IdentityLimiter(LOOKUPS_PER_EMAIL, "on", RedisClient(None), b"")
    lookups = OrderLookupService(orders_app.container.stored_database(), limiter)

    for email in ("ada@example.com", "other@example.com"):
        for _ in range(5):
            await lookups.request(ANYONE, LookUpOrder(number=order.number, email=email))
        again = LookUpOrder(number=order.number, email=email.capitalize())
        with pytest.raises(TooManyRequests) as refused:
            await lookups.request(ANYONE, again)

        assert refused.value.details["policy"] == "order-lookups-per-email"
        assert refused.value.details["retry_after"] > 60


async def test_log_has_no_link_unless_the_setting_says_so(orders_app: OrdersApp) -> None:
    def no_call(*_: Any) -> None:
        raise AssertionError("no token is needed")

    event = OrderLinkRequested(
        lookup_id=new_id(),
        order_id=new_id(),
        owner_id=new_id(),
        number="MH-1001",
        email="ada@example.com",
    )
    await orders_app.receive_event(event)
    (delivery,) = await orders_app.claim()
    users: Any = no_call
    links = OrderLinks(users, orders_app.container.database(), None)

    with capture_logs() as lines:
        await links.send(delivery, event)

    assert lines == []
    assert await orders_app.claim() == []
