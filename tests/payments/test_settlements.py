"""Test the statement that settles a charge: it writes everything, or nothing."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from markethall.payments.contract import PaymentStatus
from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.statuses import OperationStatus
from markethall.payments.domain.operation import Failed, Operation, Succeeded
from markethall.payments.domain.payment import Payment
from markethall.payments.ports import Settlement
from markethall.payments.service.apply_outcome import _build_settlement
from markethall.payments.service.views import to_payment_view
from markethall.shared.http.idempotent_routes import ok_response
from markethall.shared.idempotency.records import IdempotencyRecord, IdempotentCommand
from markethall.shared.kernel.ids import new_id
from tests.payments.conftest import PaymentsApp, user_context

SCOPE = "a scope"


async def charge_of(payments_app: PaymentsApp, payment: PaymentView) -> tuple[Payment, Operation]:
    """Record a charge, and return the stored payment and operation."""
    operation_id = (await payments_app.record_intent(payment, "sandbox_ok")).operation_id
    return await load(payments_app, payment, operation_id)


async def load(
    payments_app: PaymentsApp, payment: PaymentView, operation_id: UUID
) -> tuple[Payment, Operation]:
    async with payments_app.container.database().read_session() as store:
        found = await store.get_payment_for_operation(payment.payment_id, operation_id)
    assert found[0] is not None
    assert found[1] is not None
    return found[0], found[1]


def settlement_of(payments_app: PaymentsApp, charge: tuple[Payment, Operation]) -> Settlement:
    settlement = _build_settlement(charge, Succeeded("reference"), payments_app.clock())
    assert settlement is not None
    return settlement


async def claim_key(payments_app: PaymentsApp) -> IdempotentCommand:
    now, store = payments_app.clock(), payments_app.container.persistence().idempotency_store
    record = IdempotencyRecord(scope=SCOPE, request_hash="", id=new_id(), lease_until=now)
    assert await store.claim(record, now + timedelta(days=1)) is None
    return IdempotentCommand(SCOPE, record.id, timedelta(days=1), ok_response)


async def settle(
    payments_app: PaymentsApp, settlement: Settlement, attempt: IdempotentCommand
) -> bool:
    ctx, view = user_context(settlement.payment.user_id), to_payment_view(settlement.payment)
    async with payments_app.container.database().autocommit() as store:
        return await store.try_settle(settlement, ctx, attempt, view)


async def stored_response(payments_app: PaymentsApp) -> str | None:
    now, store = payments_app.clock(), payments_app.container.persistence().idempotency_store
    record = IdempotencyRecord(scope=SCOPE, request_hash="", id=new_id(), lease_until=now)
    existing = await store.claim(record, now + timedelta(days=1))
    return existing.response.body if existing and existing.response else None


@pytest.mark.parametrize("has_key", [True, False])
async def test_settlement_writes_payment_operation_event_posting_and_response(
    payments_app: PaymentsApp, *, has_key: bool
) -> None:
    payment = await payments_app.open()
    charge = await charge_of(payments_app, payment)
    without_key = IdempotentCommand.without_key(charge[1].operation_id)
    attempt = await claim_key(payments_app) if has_key else without_key

    assert await settle(payments_app, settlement_of(payments_app, charge), attempt)

    stored, operation = await load(payments_app, payment, charge[1].operation_id)
    assert (stored.status, operation.status) == (PaymentStatus.CAPTURED, OperationStatus.SUCCEEDED)
    assert await payments_app.event_types() == ["payment_captured"]
    assert await payments_app.posting_count() == 1
    if has_key:
        body = to_payment_view(stored).model_dump_json()
        assert await stored_response(payments_app) == body


@pytest.mark.parametrize("reason", ["payment changed", "settled before", "key has a response"])
async def test_settlement_that_is_too_late_writes_nothing(
    payments_app: PaymentsApp, reason: str
) -> None:
    payment = await payments_app.open()
    charge = await charge_of(payments_app, payment)
    settlement = settlement_of(payments_app, charge)
    attempt = await claim_key(payments_app)
    if reason == "payment changed":
        changed = replace(charge[0], version=charge[0].version + 1)
        async with payments_app.container.database().transaction() as store:
            await store.save_payment(changed)
    elif reason == "settled before":
        without_key = IdempotentCommand.without_key(charge[1].operation_id)
        assert await settle(payments_app, settlement, without_key)
        # restores the expected version, so that only the status of the operation can stop the retry
        payment_after = replace(settlement.payment, version=settlement.payment.version + 1)
        settlement = replace(settlement, payment=payment_after)
    else:
        response = ok_response(payment)
        await payments_app.container.persistence().idempotency_store.complete(
            SCOPE, response, payments_app.clock()
        )
    before = await load(payments_app, payment, charge[1].operation_id)
    response_before = await stored_response(payments_app)
    events, postings = await payments_app.event_types(), await payments_app.posting_count()

    assert not await settle(payments_app, settlement, attempt)

    assert await load(payments_app, payment, charge[1].operation_id) == before
    assert await stored_response(payments_app) == response_before
    assert (await payments_app.event_types(), await payments_app.posting_count()) == (
        events,
        postings,
    )


async def test_operation_is_not_added_to_a_payment_that_has_changed(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.open()
    charge = await charge_of(payments_app, payment)
    stale = replace(charge[0])  # has the version of the stored row, not the next one
    second = replace(charge[1], operation_id=new_id())

    async with payments_app.container.database().autocommit() as store:
        assert not await store.try_add_operation(stale, second)
        assert await store.get_operation(second.operation_id) is None


async def test_confirm_locks_the_payment_if_it_has_changed_meanwhile(
    payments_app: PaymentsApp,
) -> None:
    """The provider's answer is recorded although the payment has changed during the call."""
    payment = await payments_app.open()
    payments_app.gateway.before_response = lambda: bump_version(payments_app, payment)

    confirmed = await payments_app.confirm(payment)

    assert confirmed.status is PaymentStatus.CAPTURED
    assert await payments_app.event_types() == ["payment_captured"]
    assert await payments_app.posting_count() == 1


async def bump_version(payments_app: PaymentsApp, payment: PaymentView) -> None:
    async with payments_app.container.database().transaction() as store:
        stored = await store.get_payment_for_update(payment.payment_id)
        assert stored is not None
        await store.save_payment(replace(stored, version=stored.version + 1))


@pytest.mark.parametrize("outcome", [Failed("card_declined"), None])
async def test_other_outcomes_need_the_transaction(
    payments_app: PaymentsApp, outcome: Failed | None
) -> None:
    charge = await charge_of(payments_app, await payments_app.open())

    assert _build_settlement(charge, outcome, payments_app.clock()) is None
