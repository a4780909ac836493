"""Captures, voids and the expiry of authorizations, in a shop that captures on fulfilment."""

from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from markethall.payments.contract import (
    CapturePayment,
    InvalidPaymentTransition,
    PaymentInProgress,
    PaymentStatus,
    RefundExceedsCaptured,
    VoidPayment,
)
from markethall.payments.contract.api import OperationView, PaymentView
from markethall.payments.contract.errors import (
    CaptureExceedsAuthorized,
    OperationIdTaken,
    PaymentNotFound,
    UnsupportedByProvider,
)
from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import Failed, Succeeded
from markethall.payments.ports import Capability, OperationRequest, PaymentGatewayTimeout
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import CurrencyMismatch, Money
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import (
    ORDERS_CONTEXT,
    STAFF,
    Killed,
    PaymentsApp,
    attempt_without_key,
    build_payments_app,
)

WEEK = timedelta(days=7)


@pytest.fixture(params=["memory", "sql", "remote"])
def wiring(request: pytest.FixtureRequest) -> tuple[str, PaymentsApp]:
    """Replace the fixture of all tests of payments: this shop captures on fulfilment."""
    is_memory = request.param == "memory"
    postgres: Postgres | None = None if is_memory else request.getfixturevalue("postgres")
    storage = "memory" if is_memory else "sql"
    return request.param, build_payments_app(storage, postgres, payments_capture="on_fulfilment")


def amounts(payment: PaymentView) -> tuple[str, int, int, int]:
    """Return (status, authorized, captured, refunded)."""
    return (
        payment.status.value,
        payment.authorized.amount,
        payment.captured.amount,
        payment.refunded.amount,
    )


def eur(amount: int) -> Money:
    return Money(amount=amount, currency="EUR")


async def operations(payments_app: PaymentsApp, payment: PaymentView) -> list[OperationView]:
    page = await payments_app.payment_api.list_operations(
        STAFF, payment.payment_id, PageQuery(limit=100)
    )
    return list(page.items)


async def capture_due(
    payments_app: PaymentsApp, payment: PaymentView, due: int, total: int, **values: object
) -> PaymentView:
    command = CapturePayment.model_validate(
        {
            "payment_id": payment.payment_id,
            "capture_id": new_id(),
            "due": eur(due),
            "total": eur(total),
        }
        | values
    )
    return PaymentView(**dict(await payments_app.payments.capture_due(ORDERS_CONTEXT, command)))


async def void_by_orders(payments_app: PaymentsApp, payment: PaymentView) -> PaymentView:
    command = VoidPayment(payment_id=payment.payment_id, void_id=new_id())
    return PaymentView(**dict(await payments_app.payments.void(ORDERS_CONTEXT, command)))


def limit_to(payments_app: PaymentsApp, *missing: Capability) -> None:
    """Remove these capabilities from the provider."""
    gateway = payments_app.gateway
    gateway.capabilities = gateway.capabilities - set(missing)


# Confirm


async def test_confirm_authorizes_and_takes_nothing(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)

    assert amounts(payment) == ("authorized", 1000, 0, 0)
    assert timedelta() <= payment.expires_at - payment.created_at - WEEK < timedelta(minutes=1)
    assert await payments_app.taken(payment) == (0, 0)
    assert await payments_app.posting_count() == 0
    assert await payments_app.event_types() == ["payment_status_changed"]


async def test_confirm_charges_where_the_provider_cannot_authorize(
    payments_app: PaymentsApp,
) -> None:
    limit_to(payments_app, Capability.AUTHORIZE)

    payment = await payments_app.confirm(await payments_app.open(1000))

    assert amounts(payment) == ("captured", 1000, 1000, 0)


async def test_free_payment_is_captured_at_once(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(0), "free")

    assert payment.status is PaymentStatus.CAPTURED


@pytest.mark.parametrize("method", ["sandbox_timeout_before", "sandbox_timeout_after"])
async def test_lost_authorization_is_reconciled(payments_app: PaymentsApp, method: str) -> None:
    payment = await payments_app.confirm(await payments_app.open(1000), method)

    await payments_app.reconcile()

    is_authorized = method == "sandbox_timeout_after"
    assert payment.status is PaymentStatus.UNKNOWN
    status = (await payments_app.current(payment)).status
    assert status is (PaymentStatus.AUTHORIZED if is_authorized else PaymentStatus.FAILED)


async def test_authorized_payment_is_not_confirmed_again(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized()

    with pytest.raises(InvalidPaymentTransition) as error:
        await payments_app.confirm(payment)

    allowed = ["capture", "expire", "void"]
    assert error.value.details == {"status": "authorized", "allowed": allowed}


# Captures by staff


async def test_capture_takes_the_whole_amount(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)

    captured = await payments_app.capture(payment)

    assert amounts(captured) == ("captured", 1000, 1000, 0)
    assert await payments_app.taken(payment) == (1000, 0)
    assert await payments_app.posting_count() == 1
    assert (await payments_app.event_types())[-1] == "payment_captured"


async def test_several_captures_add_up(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)

    found = [amounts(await payments_app.capture(payment, part)) for part in (500, 300, 200)]

    assert found == [
        ("authorized", 1000, 500, 0),
        ("authorized", 1000, 800, 0),
        ("captured", 1000, 1000, 0),
    ]
    assert await payments_app.taken(payment) == (1000, 0)
    assert await payments_app.posting_count() == 3
    types = (await payments_app.event_types())[1:]
    assert types == [*["payment_partially_captured"] * 2, "payment_captured"]


async def test_final_capture_releases_the_rest(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)

    captured = await payments_app.capture(payment, 600, is_final=True)

    assert amounts(captured) == ("captured", 600, 600, 0)
    assert await payments_app.taken(payment) == (600, 0)
    with pytest.raises(InvalidPaymentTransition):
        await payments_app.capture(payment, 1)


async def test_partial_capture_is_final_where_the_provider_captures_once(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.authorized(1000)
    limit_to(payments_app, Capability.MULTIPLE_CAPTURES)

    captured = await payments_app.capture(payment, 600)

    assert amounts(captured) == ("captured", 600, 600, 0)


async def test_partial_capture_is_rejected_where_the_provider_takes_all(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.authorized(1000)
    limit_to(payments_app, Capability.MULTIPLE_CAPTURES, Capability.PARTIAL_CAPTURE)

    with pytest.raises(UnsupportedByProvider) as error:
        await payments_app.capture(payment, 600)

    assert error.value.details == {"provider": "sandbox", "capability": "partial_capture"}
    assert amounts(await payments_app.current(payment)) == ("authorized", 1000, 0, 0)
    assert (await payments_app.capture(payment)).status is PaymentStatus.CAPTURED


async def test_capture_never_exceeds_what_is_left(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)
    await payments_app.capture(payment, 600)

    with pytest.raises(CaptureExceedsAuthorized) as error:
        await payments_app.capture(payment, 401)

    assert error.value.details == {
        "requested": {"amount": 401, "currency": "EUR"},
        "capturable": {"amount": 400, "currency": "EUR"},
    }
    assert await payments_app.taken(payment) == (600, 0)


@pytest.mark.parametrize(
    ("amount", "error"),
    [(eur(0), ValidationFailed), (Money(amount=1, currency="USD"), CurrencyMismatch)],
)
async def test_impossible_amount_is_rejected(
    payments_app: PaymentsApp, amount: Money, error: type[Exception]
) -> None:
    payment = await payments_app.authorized(1000)

    with pytest.raises(error):
        await payments_app.payment_api.capture(
            STAFF, payment.payment_id, amount, attempt_without_key(), is_final=False
        )


@pytest.mark.parametrize("command", ["capture", "void"])
async def test_only_an_authorized_payment_is_captured_or_voided(
    payments_app: PaymentsApp, command: str
) -> None:
    payment = await payments_app.open(1000)

    with pytest.raises(InvalidPaymentTransition) as error:
        await getattr(payments_app, command)(payment)

    allowed = ["cancel", "confirm", "expire"]
    assert error.value.details == {"status": "created", "allowed": allowed}
    unknown = payment.model_copy(update={"payment_id": new_id()})
    with pytest.raises(PaymentNotFound):
        await getattr(payments_app, command)(unknown)


async def test_retried_capture_captures_once(payments_app: PaymentsApp) -> None:
    payment, attempt = await payments_app.authorized(1000), attempt_without_key()

    first = await payments_app.capture(payment, 600, attempt)
    again = await payments_app.capture(payment, 600, attempt)

    assert again == first
    assert await payments_app.taken(payment) == (600, 0)


async def test_rejected_capture_shows_its_reason(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)
    charge_id = (await operations(payments_app, payment))[0].operation_id
    await end_at_provider(payments_app, payment, charge_id)

    rejected = await payments_app.capture(payment, 600)

    assert amounts(rejected) == ("authorized", 1000, 0, 0)
    assert rejected.failure_code == "capture_not_possible"
    assert await payments_app.posting_count() == 0


async def end_at_provider(
    payments_app: PaymentsApp, payment: PaymentView, charge_id: object
) -> None:
    """Void the authorization at the provider, for example in its dashboard."""
    request = OperationRequest(
        operation_id=new_id(),
        payment_id=payment.payment_id,
        kind=OperationKind.VOID,
        amount=payment.amount,
        created_at=payment.created_at,
        charge_id=UUID(str(charge_id)),
    )
    assert isinstance(await payments_app.gateway.void(request), Succeeded)


# Lost answers and crashes


@pytest.mark.parametrize("failure", [PaymentGatewayTimeout, Killed])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("command", ["capture", "void"])
async def test_capture_and_void_end_after_a_crash_or_a_lost_answer(
    payments_app: PaymentsApp, command: str, when: str, failure: type[BaseException]
) -> None:
    payment = await payments_app.authorized(1000)
    setattr(payments_app.gateway, when, failure())

    if failure is Killed:
        with pytest.raises(Killed):
            await getattr(payments_app, command)(payment)
    else:
        assert (await getattr(payments_app, command)(payment)).status is PaymentStatus.AUTHORIZED
    with pytest.raises(PaymentInProgress):
        await payments_app.capture(payment, 1)
    await payments_app.reconcile()

    status, captured = ("captured", 1000) if command == "capture" else ("voided", 0)
    after = await payments_app.current(payment)
    assert (after.status, after.captured.amount) == (status, captured)
    assert await payments_app.taken(payment) == (captured, 0)
    assert await payments_app.posting_count() == captured // 1000


async def test_retry_of_an_unknown_capture_captures_once(payments_app: PaymentsApp) -> None:
    payment, attempt = await payments_app.authorized(1000), attempt_without_key()
    payments_app.gateway.after = PaymentGatewayTimeout()

    unknown = await payments_app.capture(payment, 600, attempt)
    is_final = attempt.is_final
    await payments_app.reconcile()
    again = await payments_app.capture(payment, 600, attempt)

    assert (unknown.captured.amount, is_final) == (0, False)
    assert amounts(again) == ("authorized", 1000, 600, 0)
    assert await payments_app.taken(payment) == (600, 0)


# Voids


async def test_void_releases_everything(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)

    voided = await payments_app.void(payment)

    assert amounts(voided) == ("voided", 0, 0, 0)
    assert await payments_app.posting_count() == 0
    assert (await payments_app.event_types())[-1] == "payment_status_changed"
    with pytest.raises(InvalidPaymentTransition) as error:
        await payments_app.capture(payment)
    assert error.value.details == {"status": "voided", "allowed": []}


async def test_void_after_a_capture_keeps_what_is_captured(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)
    await payments_app.capture(payment, 600)

    voided = await payments_app.void(payment)

    assert amounts(voided) == ("captured", 600, 600, 0)
    assert await payments_app.taken(payment) == (600, 0)
    assert (await payments_app.event_types())[-1] == "payment_captured"


async def test_payment_with_a_rejected_void_expires(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)
    charge_id = (await operations(payments_app, payment))[0].operation_id
    await end_at_provider(payments_app, payment, charge_id)

    with capture_logs() as logs:
        rejected = await payments_app.void(payment)
    payments_app.clock.advance(WEEK.total_seconds())
    await payments_app.run_periodic_jobs()

    assert amounts(rejected) == ("authorized", 1000, 0, 0)
    assert rejected.failure_code == "void_not_possible"
    assert "payment.void_failed" in [entry["event"] for entry in logs]
    assert amounts(await payments_app.current(payment)) == ("expired", 0, 0, 0)


async def test_authorized_payment_is_voided_not_cancelled(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)

    with pytest.raises(InvalidPaymentTransition) as error:
        await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)

    assert error.value.details["status"] == "authorized"


# Refunds


async def test_refund_counts_against_what_is_captured(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)
    with pytest.raises(InvalidPaymentTransition):
        await payments_app.refund(payment, 1)
    await payments_app.capture(payment, 600)

    await payments_app.refund(payment, 500)
    with pytest.raises(RefundExceedsCaptured):
        await payments_app.refund(payment, 101)
    await payments_app.capture(payment, 400)
    await payments_app.refund(payment, 500)

    assert amounts(await payments_app.current(payment)) == ("captured", 1000, 1000, 1000)
    assert await payments_app.taken(payment) == (1000, 1000)


async def test_whole_captured_part_can_be_refunded_before_the_rest_is_captured(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.authorized(1000)
    await payments_app.capture(payment, 600)

    await payments_app.refund(payment)

    assert amounts(await payments_app.current(payment)) == ("authorized", 1000, 600, 600)
    assert (await payments_app.capture(payment)).captured == eur(1000)


# The expiry of an authorization


async def test_authorization_expires(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)

    payments_app.clock.advance(WEEK.total_seconds() - 60)
    await payments_app.run_periodic_jobs()
    before = await payments_app.current(payment)
    payments_app.clock.advance(60)
    with pytest.raises(InvalidPaymentTransition) as error:
        await payments_app.capture(payment)
    await payments_app.run_periodic_jobs()
    await payments_app.run_periodic_jobs()

    assert before.status is PaymentStatus.AUTHORIZED
    assert error.value.details == {"status": "expired", "allowed": []}
    assert amounts(await payments_app.current(payment)) == ("expired", 0, 0, 0)
    assert await payments_app.event_types() == ["payment_status_changed"] * 2


async def test_expiry_after_a_capture_keeps_what_is_captured(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)
    await payments_app.capture(payment, 600)

    payments_app.clock.advance(WEEK.total_seconds())
    await payments_app.run_periodic_jobs()

    assert amounts(await payments_app.current(payment)) == ("captured", 600, 600, 0)
    assert await payments_app.taken(payment) == (600, 0)
    types = (await payments_app.event_types())[1:]
    assert types == ["payment_partially_captured", "payment_captured"]


async def test_capture_with_lost_answer_is_found_before_the_authorization_expires(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.authorized(1000)
    payments_app.gateway.after = PaymentGatewayTimeout()
    await payments_app.capture(payment)

    payments_app.clock.advance(WEEK.total_seconds())
    await payments_app.run_periodic_jobs()

    assert amounts(await payments_app.current(payment)) == ("captured", 1000, 1000, 0)


async def test_capture_that_never_arrived_is_rejected_after_the_authorization_has_expired(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.authorized(1000)
    payments_app.gateway.before = PaymentGatewayTimeout()
    await payments_app.capture(payment)

    payments_app.clock.advance(WEEK.total_seconds())
    await payments_app.run_periodic_jobs()
    await payments_app.run_periodic_jobs()

    assert amounts(await payments_app.current(payment)) == ("expired", 0, 0, 0)
    assert await payments_app.taken(payment) == (0, 0)


# Commands of orders


async def test_due_is_captured_once_however_often_it_is_asked_for(
    payments_app: PaymentsApp,
) -> None:
    payment, capture_id = await payments_app.authorized(1000), new_id()

    for _ in range(2):
        first = await capture_due(payments_app, payment, 400, 1000, capture_id=capture_id)
    repeated = await capture_due(payments_app, payment, 400, 1000)
    last = await capture_due(payments_app, payment, 1000, 1000)
    late = await capture_due(payments_app, payment, 400, 1000)

    assert amounts(first) == amounts(repeated) == ("authorized", 1000, 400, 0)
    assert amounts(last) == amounts(late) == ("captured", 1000, 1000, 0)
    assert await payments_app.taken(payment) == (1000, 0)
    assert await payments_app.posting_count() == 2


async def test_last_due_releases_the_rest(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)
    await capture_due(payments_app, payment, 400, 1000)

    last = await capture_due(payments_app, payment, 700, 700)

    assert amounts(last) == ("captured", 700, 700, 0)


async def test_rest_is_released_when_nothing_more_is_due(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)
    await capture_due(payments_app, payment, 400, 1000)

    released = await capture_due(payments_app, payment, 400, 400)

    kinds = [operation.kind for operation in await operations(payments_app, payment)]
    assert amounts(released) == ("captured", 400, 400, 0)
    assert kinds == [OperationKind.AUTHORIZE, OperationKind.CAPTURE, OperationKind.VOID]


@pytest.mark.parametrize(
    ("missing", "captured"),
    [
        ((Capability.MULTIPLE_CAPTURES,), 900),
        ((Capability.MULTIPLE_CAPTURES, Capability.PARTIAL_CAPTURE), 1000),
    ],
)
async def test_provider_that_captures_once_captures_all_at_the_first_shipment(
    payments_app: PaymentsApp, missing: tuple[Capability, ...], captured: int
) -> None:
    payment = await payments_app.authorized(1000)
    limit_to(payments_app, *missing)

    first = await capture_due(payments_app, payment, 400, 900)
    second = await capture_due(payments_app, payment, 900, 900)

    assert amounts(first) == amounts(second) == ("captured", captured, captured, 0)


@pytest.mark.parametrize(
    "missing",
    [
        (),
        (Capability.MULTIPLE_CAPTURES,),
        (Capability.MULTIPLE_CAPTURES, Capability.PARTIAL_CAPTURE),
    ],
)
async def test_authorization_stays_while_nothing_is_shipped(
    payments_app: PaymentsApp, missing: tuple[Capability, ...]
) -> None:
    payment = await payments_app.authorized(1000)
    limit_to(payments_app, *missing)

    after_cancelled_units = await capture_due(payments_app, payment, 0, 900)
    after_shipment = await capture_due(payments_app, payment, 900, 900)

    assert amounts(after_cancelled_units) == ("authorized", 1000, 0, 0)
    assert after_shipment.status is PaymentStatus.CAPTURED


async def test_due_waits_for_an_unknown_outcome(payments_app: PaymentsApp) -> None:
    payment, capture_id = await payments_app.authorized(1000), new_id()
    payments_app.gateway.after = PaymentGatewayTimeout()

    for _ in range(2):
        with pytest.raises(PaymentInProgress):
            await capture_due(payments_app, payment, 400, 1000, capture_id=capture_id)
    with pytest.raises(PaymentInProgress):
        await capture_due(payments_app, payment, 1000, 1000)
    await payments_app.reconcile()
    found = await capture_due(payments_app, payment, 400, 1000, capture_id=capture_id)

    assert amounts(found) == ("authorized", 1000, 400, 0)


async def test_due_is_not_captured_after_the_end(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)
    await payments_app.void(payment)

    with pytest.raises(InvalidPaymentTransition) as error:
        await capture_due(payments_app, payment, 400, 1000)

    assert error.value.details == {"status": "voided", "allowed": []}


async def test_capture_id_of_another_operation_is_rejected(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)
    charge_id = (await operations(payments_app, payment))[0].operation_id

    with pytest.raises(OperationIdTaken):
        await capture_due(payments_app, payment, 400, 1000, capture_id=charge_id)


async def test_void_by_orders_leaves_an_ended_payment(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)

    voided = await void_by_orders(payments_app, payment)
    again = await void_by_orders(payments_app, payment)
    captured = await payments_app.capture(await payments_app.authorized(500))
    after = await void_by_orders(payments_app, captured)

    assert amounts(voided) == amounts(again) == ("voided", 0, 0, 0)
    assert amounts(after) == ("captured", 500, 500, 0)


# Webhooks


async def test_early_late_and_doubled_webhooks_change_nothing(payments_app: PaymentsApp) -> None:
    payment = await payments_app.authorized(1000)
    charge_id = (await operations(payments_app, payment))[0].operation_id
    attempt = attempt_without_key()

    await payments_app.send(attempt.id, Succeeded("cp"), OperationKind.CAPTURE)
    await payments_app.capture(payment, 600, attempt)
    for _ in range(2):
        await payments_app.send(charge_id, Succeeded("ch"), OperationKind.AUTHORIZE)
        await payments_app.send(attempt.id, Succeeded("cp"), OperationKind.CAPTURE)
        await payments_app.send(attempt.id, Failed("declined"), OperationKind.CAPTURE)
        await payments_app.run_periodic_jobs()

    assert amounts(await payments_app.current(payment)) == ("authorized", 1000, 600, 0)
    assert await payments_app.posting_count() == 1


async def test_webhook_settles_a_capture_with_a_lost_answer(payments_app: PaymentsApp) -> None:
    payment, attempt = await payments_app.authorized(1000), attempt_without_key()
    payments_app.gateway.after = PaymentGatewayTimeout()
    await payments_app.capture(payment, 600, attempt)

    await payments_app.send(attempt.id, Succeeded("cp"), OperationKind.CAPTURE)

    assert amounts(await payments_app.current(payment)) == ("authorized", 1000, 600, 0)


async def test_action_of_the_customer_authorizes_late(payments_app: PaymentsApp) -> None:
    payment, attempt = await payments_app.open(1000), attempt_without_key()
    waiting = await payments_app.confirm(payment, "sandbox_action_required", attempt)
    await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)

    await payments_app.send(attempt.id, Succeeded("ch"), OperationKind.AUTHORIZE)

    assert waiting.status is PaymentStatus.REQUIRES_ACTION
    assert amounts(await payments_app.current(payment)) == ("authorized", 1000, 0, 0)


async def test_second_authorization_is_voided(payments_app: PaymentsApp) -> None:
    payment, attempt = await payments_app.open(1000), attempt_without_key()
    await payments_app.confirm(payment, "sandbox_action_required", attempt)
    await payments_app.confirm(payment)

    await payments_app.send(attempt.id, Succeeded("ch"), OperationKind.AUTHORIZE)

    second = await payments_app.sandbox_ledger.get_charge(attempt.id)
    assert second is not None
    assert second.status == "voided"
    assert amounts(await payments_app.current(payment)) == ("authorized", 1000, 0, 0)


@pytest.mark.parametrize("kind", [OperationKind.AUTHORIZE, OperationKind.CHARGE])
@pytest.mark.parametrize("end", [PaymentStatus.VOIDED, PaymentStatus.EXPIRED])
async def test_action_finished_after_another_authorization_has_ended_takes_no_money(
    payments_app: PaymentsApp, kind: OperationKind, end: PaymentStatus
) -> None:
    payment, earlier = await payments_app.open(1000), attempt_without_key()
    capabilities = payments_app.gateway.capabilities
    if kind is OperationKind.CHARGE:
        limit_to(payments_app, Capability.AUTHORIZE)
    await payments_app.confirm(payment, "sandbox_action_required", earlier)
    payments_app.gateway.capabilities = capabilities
    await payments_app.confirm(payment)
    if end is PaymentStatus.VOIDED:
        await payments_app.void(payment)
    payments_app.clock.advance(WEEK.total_seconds() + 60)
    await payments_app.run_periodic_jobs()

    await payments_app.send(earlier.id, Succeeded(""), kind)
    await payments_app.run_periodic_jobs()

    assert amounts(await payments_app.current(payment)) == (end, 0, 0, 0)
    captured, refunded = await payments_app.taken(payment)
    charge = await payments_app.sandbox_ledger.get_charge(earlier.id)
    assert charge
    assert (captured - refunded, charge.status == "authorized") == (0, False)
