"""Races of confirms, webhooks and refunds: no provider charges twice or refunds too much.

`make test-payments` runs all rounds, also with a slow connection to the database.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from markethall.payments.contract import (
    InvalidPaymentTransition,
    PaymentInProgress,
    PaymentStatus,
    RefundExceedsCaptured,
)
from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.internal import RefundView
from markethall.shared.kernel.errors import Overloaded
from tests.payments.conftest import attempt_without_key
from tests.payments.money_shops import (
    PROVIDERS,
    MoneyShop,
    open_money_shop,
    run_concurrently,
    slow_postgres,
)

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
# the storage, and the latency of its connection in each direction in seconds
MEMORY, NEAR, FAR = ("memory", 0.0), ("sql", 0.0), ("sql", 0.02)
ROUNDS: Final = {MEMORY: 200, NEAR: 200, FAR: 200} if FULL else {MEMORY: 20, NEAR: 20}
# the number of payments that race at the same time in a test
BATCH: Final = 10
CLIENTS: Final = 20


@pytest.fixture(params=ROUNDS, ids=lambda place: f"{place[0]}-{place[1] * 1000:.0f}ms")
def place(request: pytest.FixtureRequest) -> tuple[str, float]:
    return request.param  # type: ignore[no-any-return]  # pytest does not type parameters


@pytest.fixture
def database(request: pytest.FixtureRequest, place: tuple[str, float]) -> str | None:
    """The URL of the database, or None for the memory storage."""
    return request.getfixturevalue("database_url") if place[0] == "sql" else None


@pytest.fixture(params=PROVIDERS)
async def shop(
    request: pytest.FixtureRequest, place: tuple[str, float], database: str | None
) -> AsyncIterator[MoneyShop]:
    storage, latency = place
    async with AsyncExitStack() as stack:
        postgres = None
        if database:
            postgres = await stack.enter_async_context(slow_postgres(database, latency))
        yield await stack.enter_async_context(open_money_shop(request.param, storage, postgres))


async def test_confirms_and_webhooks_of_a_payment_charge_once(
    shop: MoneyShop, place: tuple[str, float]
) -> None:
    """Each payment is confirmed by four clients, while its webhook arrives three times."""
    payments: list[PaymentView] = []
    while len(payments) < ROUNDS[place]:
        batch = [await shop.app.open() for _ in range(BATCH)]
        await run_concurrently(confirm_and_deliver(shop, payment) for payment in batch)
        payments += batch

    await shop.settle(*payments)

    await shop.assert_agrees(*payments)
    captured = Counter([(await shop.app.current(payment)).status for payment in payments])
    assert captured == {PaymentStatus.CAPTURED: len(payments)}
    assert await shop.app.posting_count() == len(payments)
    assert (await shop.app.event_types()).count("payment_captured") == len(payments)


async def confirm_and_deliver(shop: MoneyShop, payment: PaymentView) -> None:
    attempt = attempt_without_key()
    outcomes = await run_concurrently(
        shop.app.confirm(payment, shop.ok, attempt),
        shop.app.confirm(payment, shop.ok, attempt),
        *(shop.deliver_success(payment, attempt.id) for _ in range(3)),
        *(shop.app.confirm(payment, shop.ok) for _ in range(2)),
    )
    for outcome in outcomes:
        expect_no_error_but(outcome, PaymentInProgress, InvalidPaymentTransition, Overloaded)


async def test_two_hundred_callers_of_one_payment_charge_once(shop: MoneyShop) -> None:
    """A hundred clients confirm one payment, and its webhook arrives a hundred times."""
    payment, attempt = await shop.app.open(), attempt_without_key()

    confirms, webhooks = await run_in_two_groups(
        [shop.app.confirm(payment, shop.ok, attempt)]
        + [shop.app.confirm(payment, shop.ok) for _ in range(99)],
        [shop.deliver_success(payment, attempt.id) for _ in range(100)],
    )
    await shop.settle(payment)

    for outcome in confirms:
        expect_no_error_but(outcome, PaymentInProgress, InvalidPaymentTransition, Overloaded)
    assert Counter(webhooks) == {False: 1, True: 99}
    await shop.assert_agrees(payment)
    assert await shop.app.posting_count() == 1
    assert (await shop.app.event_types()).count("payment_captured") == 1


async def test_refunds_of_twenty_clients_never_exceed_the_charge(
    shop: MoneyShop, place: tuple[str, float]
) -> None:
    """Each client asks for 60, 60 and 40 of 100: the refunds are 60 + 40 or 40 + 40."""
    rounds = ROUNDS[place] // BATCH
    for _ in range(rounds):
        payment = await shop.paid(100)

        outcomes = await run_concurrently(
            shop.app.refund(payment, amount) for amount in (60, 60, 40) * CLIENTS
        )
        await shop.settle(payment)

        for outcome in outcomes:
            expect_no_error_but(outcome, RefundExceedsCaptured)
        accepted = sorted(one.amount.amount for one in outcomes if isinstance(one, RefundView))
        assert accepted in ([40, 60], [40, 40])
        assert await shop.totals(payment) == (1, 100, sum(accepted))
        await shop.assert_agrees(payment)
    postings = await shop.app.posting_count()
    assert postings == rounds * 3


async def test_same_webhook_a_hundred_times_has_one_effect(shop: MoneyShop) -> None:
    payment, attempt = await shop.app.open(), attempt_without_key()
    await shop.app.confirm(payment, shop.needs_action, attempt)
    await shop.finish_action(attempt.id)

    duplicates = await run_concurrently(
        shop.deliver_success(payment, attempt.id) for _ in range(100)
    )
    await shop.settle(payment)

    assert Counter(duplicates) == {False: 1, True: 99}
    assert (await shop.app.current(payment)).status is PaymentStatus.CAPTURED
    assert await shop.app.posting_count() == 1
    assert (await shop.app.event_types()).count("payment_captured") == 1
    await shop.assert_agrees(payment)


async def run_in_two_groups(first: list[Any], second: list[Any]) -> tuple[list[Any], list[Any]]:
    outcomes = await run_concurrently(first, second)
    return outcomes[: len(first)], outcomes[len(first) :]


def expect_no_error_but(outcome: Any, *expected: type[Exception]) -> None:
    if isinstance(outcome, BaseException):
        assert isinstance(outcome, expected), repr(outcome)
