"""Faults of Stripe and of the network: no second charge, no unknown status after reconciliation."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from markethall.payments.contract import PaymentStatus, RefundStatus
from markethall.payments.contract.api import PaymentView
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import attempt_without_key
from tests.payments.stripe_app import DECLINED, NEEDS_ACTION, OK, StripeApp, stripe_app
from tests.payments.stripe_server import Fault, StripeServer

SILENT = (Fault.SILENT_BEFORE, Fault.SILENT_AFTER)
# the timeout of the gateway in tests in which the server never answers
SHORT_TIMEOUT_SECONDS = 0.5
# All faults with the memory storage; on Postgres only a few, because most do not depend on it.
# test_provider_faults.py has the tests of delayed requests.
FAULTS = [("memory", fault) for fault in Fault if fault is not Fault.DELAYED] + [
    ("sql", fault) for fault in (Fault.LOST_BEFORE, Fault.LOST_AFTER, Fault.SILENT_AFTER)
]
with_faults = pytest.mark.parametrize(("storage", "fault"), FAULTS, indirect=["storage"])


@pytest.fixture
def timeout_seconds(request: pytest.FixtureRequest) -> float:
    fault = request.node.callspec.params.get("fault")
    return SHORT_TIMEOUT_SECONDS if fault in SILENT else 8


@pytest.fixture
async def shop(
    storage: tuple[str, Postgres | None], timeout_seconds: float
) -> AsyncIterator[StripeApp]:
    async with (
        StripeServer() as server,
        stripe_app(*storage, server, payment_provider_timeout_seconds=timeout_seconds) as shop,
    ):
        yield shop


@pytest.mark.parametrize("name", ["create", "confirm"])
@with_faults
async def test_charge_survives_a_fault(shop: StripeApp, name: str, fault: Fault) -> None:
    await shop.paid()
    shop.stripe.fail(name, fault)

    unknown = await shop.confirm(await shop.open(), OK)
    settled = await shop.settle(unknown)

    assert unknown.status is PaymentStatus.UNKNOWN
    was_charged = bool(shop.stripe.totals(unknown.payment_id)[0])
    assert settled.status is (PaymentStatus.CAPTURED if was_charged else PaymentStatus.FAILED)
    assert was_charged == has_effect(name, fault)
    await shop.assert_agrees(settled)
    await assert_payable_or_paid(shop, settled)


@pytest.mark.parametrize("name", ["create", "get", "cancel"])
@with_faults
async def test_reconciliation_survives_a_fault(shop: StripeApp, name: str, fault: Fault) -> None:
    """The charge does not reach Stripe. Then one request of the reconciler fails, too."""
    await shop.paid()
    shop.stripe.fail("confirm", Fault.LOST_BEFORE)
    unknown = await shop.confirm(await shop.open(), OK)

    shop.stripe.fail(name, fault)
    settled = await shop.settle(unknown)

    assert (settled.status, settled.failure_code) == (PaymentStatus.FAILED, "provider_timeout")
    await shop.assert_agrees(settled)
    await assert_payable_or_paid(shop, settled)


@pytest.mark.parametrize("method", [DECLINED, NEEDS_ACTION])
@pytest.mark.parametrize("fault", [Fault.LOST_AFTER, Fault.SERVER_ERROR_AFTER, Fault.GARBAGE])
async def test_other_outcomes_are_found_too(shop: StripeApp, method: str, fault: Fault) -> None:
    shop.stripe.fail("confirm", fault)

    settled = await shop.settle(await shop.confirm(await shop.open(), method))

    expected = PaymentStatus.FAILED if method == DECLINED else PaymentStatus.REQUIRES_ACTION
    assert settled.status is expected
    assert bool(settled.next_action) is (method == NEEDS_ACTION)
    await shop.assert_agrees(settled)


@pytest.mark.parametrize("name", ["refund", "get"])
@with_faults
async def test_refund_survives_a_fault(shop: StripeApp, name: str, fault: Fault) -> None:
    await shop.paid()
    payment = await shop.paid()
    shop.stripe.fail(name, fault)

    refund = await shop.refund(payment, 600)
    for _ in range(3):
        await shop.reconcile()
    if (name, fault) == ("refund", Fault.SERVER_ERROR_BEFORE):
        # Stripe repeats the 500 as long as it knows the key
        shop.stripe.forget_keys()
        shop.clock.advance(24 * 3600)
        await shop.reconcile()

    # The status is known at once after these faults. In "get", the gateway reads neither amount nor
    # metadata, and rejects a wrong currency. In "refund", it only displays the id.
    is_harmless = fault is Fault.DUPLICATE_ID if name == "refund" else fault in {
        Fault.WRONG_AMOUNT, Fault.WRONG_CURRENCY, Fault.OTHER_OBJECT,
    }  # fmt: skip
    assert refund.status is RefundStatus.UNKNOWN or is_harmless
    if refund.status is not RefundStatus.FAILED:
        assert (await shop.current(payment)).refunded.amount == 600
    await shop.assert_agrees(payment)


async def test_outage_of_an_hour(shop: StripeApp) -> None:
    charged, lost = await shop.open(), await shop.open()
    shop.stripe.fail("confirm", Fault.LOST_AFTER, Fault.LOST_BEFORE)
    unknown = [await shop.confirm(charged, OK), await shop.confirm(lost, OK)]
    paid = await shop.paid()

    shop.stripe.is_down = True
    refund = await shop.refund(paid, 500)
    late = await shop.confirm(await shop.open(), OK)
    for _ in range(4):
        shop.clock.advance(15 * 60)
        await shop.run_periodic_jobs()
    during = [await shop.current(payment) for payment in (*unknown, late)]
    shop.stripe.is_down = False
    after = [await shop.settle(payment) for payment in (*unknown, late)]

    assert {payment.status for payment in during} == {PaymentStatus.UNKNOWN}
    assert [payment.status for payment in after] == [
        PaymentStatus.CAPTURED, PaymentStatus.EXPIRED, PaymentStatus.EXPIRED,
    ]  # fmt: skip
    assert refund.status is RefundStatus.UNKNOWN
    assert (await shop.current(paid)).refunded.amount == 500
    for payment in (*after, paid):
        await shop.assert_agrees(payment)


async def test_outage_of_three_days(shop: StripeApp) -> None:
    """After three days Stripe has forgotten the idempotency keys."""
    charged, lost, paid = await shop.open(), await shop.open(), await shop.paid()
    shop.stripe.fail("confirm", Fault.LOST_AFTER, Fault.LOST_BEFORE)
    unknown = [await shop.confirm(charged, OK), await shop.confirm(lost, OK)]
    shop.stripe.fail("refund", Fault.LOST_AFTER)
    await shop.refund(paid, 500)

    shop.clock.advance(3 * 24 * 3600)
    shop.stripe.forget_keys()
    after = [await shop.settle(payment) for payment in unknown]

    assert [one.status for one in after] == [PaymentStatus.CAPTURED, PaymentStatus.EXPIRED]
    for payment in (*after, paid):
        await shop.assert_agrees(payment)


async def test_key_that_stripe_rejects_settles_when_it_is_right(shop: StripeApp) -> None:
    shop.stripe.rejects_key = True
    unknown = await shop.confirm(await shop.open(), OK)
    await shop.reconcile()
    still = await shop.current(unknown)

    shop.stripe.rejects_key = False
    settled = await shop.settle(unknown)

    assert still.status is unknown.status is PaymentStatus.UNKNOWN
    assert settled.status is PaymentStatus.FAILED
    await shop.assert_agrees(settled)


async def test_confirm_races_webhook_and_reconciler(shop: StripeApp) -> None:
    """Each of ten payments is confirmed five times at once; then all webhooks are delivered."""
    payments = [await shop.open() for _ in range(10)]

    async def pay(payment: PaymentView) -> None:
        attempt = attempt_without_key()
        shop.stripe.fail("confirm", Fault.LOST_AFTER)
        await asyncio.gather(
            *(shop.confirm(payment, OK, attempt) for _ in range(5)),
            shop.run_periodic_jobs(),
            return_exceptions=True,
        )
        await asyncio.gather(*(shop.deliver(event) for event in list(shop.stripe.events)))

    await asyncio.gather(*map(pay, payments))

    for payment in payments:
        assert (await shop.settle(payment)).status is PaymentStatus.CAPTURED
        await shop.assert_agrees(payment)
    assert await shop.posting_count() == 10


async def test_refunds_of_many_clients_never_exceed_the_charge(shop: StripeApp) -> None:
    payment = await shop.paid(100)
    shop.stripe.fail("refund", Fault.LOST_AFTER, Fault.RATE_LIMITED, Fault.SERVER_ERROR_AFTER)

    await asyncio.gather(
        *(shop.refund(payment, amount) for amount in (60, 60, 40) * 7), return_exceptions=True
    )
    for _ in range(3):
        await shop.reconcile()

    assert (await shop.current(payment)).refunded.amount == 100
    await shop.assert_agrees(payment)


def has_effect(name: str, fault: Fault) -> bool:
    """Return whether a request charges the card despite this fault."""
    nothing_done = {
        Fault.LOST_BEFORE, Fault.RESET_BEFORE, Fault.SILENT_BEFORE, Fault.RATE_LIMITED,
        Fault.KEY_IN_USE, Fault.SERVER_ERROR_BEFORE,
    }  # fmt: skip
    return name == "confirm" and fault not in nothing_done


async def assert_payable_or_paid(shop: StripeApp, payment: PaymentView) -> None:
    """Pay again if the payment has failed. Check that there is exactly one charge."""
    if payment.status is PaymentStatus.FAILED:
        payment = await shop.confirm(payment, OK)
    assert payment.status is PaymentStatus.CAPTURED
    await shop.assert_agrees(payment)
