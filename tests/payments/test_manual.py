"""The provider `manual`: money that arrives outside of the shop."""

import json
from datetime import timedelta

import pytest

from markethall.payments.contract import (
    InvalidPaymentTransition,
    PaymentStatus,
    UnknownPaymentMethod,
)
from markethall.payments.contract.api import AwaitTransferAction
from markethall.payments.contract.errors import UnknownProvider
from markethall.payments.gateway.manual import ManualSettings
from markethall.settings import read_settings
from markethall.shared.composition.settings import SettingsError, read_one
from tests.payments.conftest import ANONYMOUS, MANUAL_METHODS, ORDERS_CONTEXT, PaymentsApp

TRANSFER = "manual:bank_transfer"


async def test_customer_gets_instructions_and_days(payments_app: PaymentsApp) -> None:
    opened = await payments_app.open()

    payment = await payments_app.confirm(opened, TRANSFER)

    assert (payment.status, payment.provider) == (PaymentStatus.REQUIRES_ACTION, "manual")
    assert payment.next_action == AwaitTransferAction(
        instructions=f"Transfer the amount to NL00; reference {payment.payment_id}."
    )
    days = payment.expires_at - opened.created_at
    assert timedelta(days=7) <= days < timedelta(days=7, seconds=1)
    assert await payments_app.current(payment) == payment
    assert await payments_app.posting_count() == 0


async def test_orders_learns_the_deadline(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), TRANSFER)

    (event,) = await payments_app.events()

    assert event.type == "payments.payment_status_changed"
    assert json.loads(event.payload)["status"] == "requires_action"
    expires_at = payment.model_dump(mode="json")["expires_at"]
    assert json.loads(event.payload)["expires_at"] == expires_at


async def test_payment_lives_until_its_deadline(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), TRANSFER)

    payments_app.clock.advance(timedelta(days=6).total_seconds())
    await payments_app.run_periodic_jobs()
    waiting = await payments_app.current(payment)
    payments_app.clock.advance(timedelta(days=1).total_seconds())
    await payments_app.run_periodic_jobs()

    assert waiting == payment
    assert (await payments_app.current(payment)).status is PaymentStatus.EXPIRED


async def test_customer_may_choose_again(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "manual:cash_on_delivery")
    again = await payments_app.confirm(payment, TRANSFER)

    paid = await payments_app.confirm(payment)

    assert again.status is PaymentStatus.REQUIRES_ACTION
    assert again.expires_at == payment.expires_at
    assert (paid.status, paid.provider) == (PaymentStatus.CAPTURED, "sandbox")
    assert paid.next_action is None


async def test_choosing_again_does_not_renew_the_deadline(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()
    for _ in range(3):
        again = await payments_app.confirm(payment, TRANSFER)
        payments_app.clock.advance(timedelta(days=2).total_seconds())
    payments_app.clock.advance(timedelta(days=1, seconds=1).total_seconds())
    await payments_app.run_periodic_jobs()

    assert again.expires_at == payment.created_at + timedelta(days=7)
    assert (await payments_app.current(payment)).status is PaymentStatus.EXPIRED
    with pytest.raises(InvalidPaymentTransition):
        await payments_app.confirm(payment, TRANSFER)


async def test_crash_before_the_answer_is_reconciled(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()
    await payments_app.record_intent(payment, TRANSFER)

    await payments_app.reconcile()

    waiting = await payments_app.current(payment)
    assert waiting.status is PaymentStatus.REQUIRES_ACTION
    assert waiting.expires_at == payment.created_at + timedelta(days=7)


@pytest.mark.parametrize(
    ("method", "amount", "currency"),
    [
        ("manual:cash_on_delivery", 5001, "EUR"),
        ("manual:cash_on_delivery", 5, "USD"),
        ("manual:invoice", 5, "EUR"),
        ("manual", 5, "EUR"),
    ],
)
async def test_method_that_is_not_offered_is_refused(
    payments_app: PaymentsApp, method: str, amount: int, currency: str
) -> None:
    payment = await payments_app.open(amount, currency)

    with pytest.raises(UnknownPaymentMethod):
        await payments_app.confirm(payment, method)


async def test_cancelled_payment_ends(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), TRANSFER)

    await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)

    assert (await payments_app.current(payment)).status is PaymentStatus.CANCELLED


async def test_manual_takes_no_webhooks(payments_app: PaymentsApp) -> None:
    with pytest.raises(UnknownProvider):
        await payments_app.payment_api.receive_webhook(ANONYMOUS, "manual", {}, b"{}")


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "Bank transfer"},
        {"deadline_days": 0},
        {"deadline_days": 91},
        {"instructions": ""},
        {"currencies": ["XXZ"]},
        {"countries": ["ZZ"]},
        {"max_total": {"amount": 0, "currency": "EUR"}},
        {"iban": "NL00"},
        {"code": "cash_on_delivery"},
    ],
)
def test_wrong_method_stops_the_start(changes: dict[str, object]) -> None:
    methods = (MANUAL_METHODS[0] | changes, MANUAL_METHODS[1])

    with pytest.raises(SettingsError, match="MARKETHALL_MANUAL_PAYMENT_METHODS"):
        read_one(ManualSettings, {"manual_payment_methods": methods})


def test_manual_needs_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETHALL_PAYMENT_PROVIDERS", "manual")

    with pytest.raises(SettingsError) as error:
        read_settings()
    monkeypatch.setenv("MARKETHALL_MANUAL_PAYMENT_METHODS", json.dumps(MANUAL_METHODS))

    assert error.value.lines == ["MARKETHALL_MANUAL_PAYMENT_METHODS: is required by manual"]
    assert "payments" in read_settings().by_context


def test_methods_that_are_no_json_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETHALL_PAYMENT_PROVIDERS", "manual")
    monkeypatch.setenv("MARKETHALL_MANUAL_PAYMENT_METHODS", "bank transfer")

    with pytest.raises(SettingsError) as error:
        read_settings()

    assert error.value.lines == [
        "MARKETHALL_MANUAL_PAYMENT_METHODS: must be a JSON object or array"
    ]
