"""The contract suite of `PaymentApi`. It runs on each storage."""

import asyncio
import json
from functools import partial

import pytest

from markethall.payments.contract import (
    InvalidPaymentTransition,
    PaymentInProgress,
    PaymentStatus,
    PaymentStatusChanged,
    UnknownPaymentMethod,
)
from markethall.payments.contract.api import PaymentQuery, PaymentView, RedirectAction
from markethall.payments.contract.errors import PaymentNotFound, RefundNotFound
from markethall.payments.contract.ledger import PostingQuery
from markethall.payments.contract.statuses import OperationKind, OperationStatus
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import CursorInvalid, PageQuery
from tests.payments.conftest import (
    STAFF,
    Killed,
    PaymentsApp,
    attempt_without_key,
    charge_request,
    user_context,
)


@pytest.mark.parametrize(
    ("method", "settled"), [("timeout_after", "captured"), ("timeout_before", "failed")]
)
async def test_retry_of_unknown_confirm_gives_the_truth_once_settled(
    payments_app: PaymentsApp, method: str, settled: str
) -> None:
    payment, method = await payments_app.open(), f"sandbox_{method}"
    confirm = partial(payments_app.confirm_with_key, payment, "key", method)

    first, is_replay = await confirm()
    calls = payments_app.gateway.calls
    meanwhile, _ = await confirm()
    calls_of_retry = payments_app.gateway.calls - calls
    await payments_app.reconcile()
    final, _ = await confirm()
    replayed, is_final_replay = await confirm()

    statuses = [json.loads(response.body)["status"] for response in (first, meanwhile, final)]
    assert statuses == ["unknown", "unknown", settled]
    assert (is_replay, is_final_replay, replayed) == (False, True, final)
    assert calls_of_retry == 0
    assert await payments_app.charged() == (1 if settled == "captured" else 0)


@pytest.mark.parametrize("method", ["free", "sandbox_ok"])
async def test_payment_of_zero_is_paid_without_the_provider(
    payments_app: PaymentsApp, method: str
) -> None:
    payment = await payments_app.confirm(await payments_app.open(0), method)
    operations = await payments_app.payment_api.list_operations(
        STAFF, payment.payment_id, PageQuery()
    )

    assert (payment.status, payment.provider) == (PaymentStatus.CAPTURED, "free")
    assert [operation.method for operation in operations.items] == ["free"]
    assert payments_app.gateway.calls == await payments_app.charged() == 0
    assert await payments_app.posting_count() == 0
    assert await payments_app.event_types() == ["payment_captured"]


async def test_only_a_payment_of_zero_is_free(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open(1)

    with pytest.raises(UnknownPaymentMethod):
        await payments_app.confirm(payment, "free")

    assert await payments_app.current(payment) == payment


async def test_accepted_card_captures_payment(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(1999))

    assert payment.status is PaymentStatus.CAPTURED
    assert payment.authorized == payment.captured == payment.amount
    assert await payments_app.charged() == 1
    assert await payments_app.event_types() == ["payment_captured"]
    assert await payments_app.posting_count() == 1


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("sandbox_declined", "card_declined"),
        ("sandbox_insufficient_funds", "insufficient_funds"),
    ],
)
async def test_declined_card_leaves_payment_payable(
    payments_app: PaymentsApp, method: str, code: str
) -> None:
    payment = await payments_app.confirm(await payments_app.open(), method)

    assert (payment.status, payment.failure_code) == (PaymentStatus.FAILED, code)
    assert await payments_app.event_types() == ["payment_failed"]
    assert (await payments_app.confirm(payment)).status is PaymentStatus.CAPTURED
    assert await payments_app.charged() == 1


async def test_card_with_required_action_captures_afterwards(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_action_required")

    assert payment.status is PaymentStatus.REQUIRES_ACTION
    assert isinstance(payment.next_action, RedirectAction)
    assert payment.next_action.url.startswith("https://")
    assert await published_statuses(payments_app) == [("requires_action", payment.version)]
    paid = await payments_app.confirm(payment)
    assert (paid.status, paid.next_action) == (PaymentStatus.CAPTURED, None)
    assert await payments_app.charged() == 1


async def published_statuses(payments_app: PaymentsApp) -> list[tuple[str, int]]:
    """Return status and version of the payment in each PaymentStatusChanged."""
    events = [envelope.decode() for envelope in await payments_app.events()]
    return [
        (event.status.value, event.payment_version)
        for event in events
        if isinstance(event, PaymentStatusChanged)
    ]


async def test_payment_is_announced_as_processing_while_the_provider_is_slow(
    payments_app: PaymentsApp,
) -> None:
    announced: list[tuple[str, int]] = []

    async def wait_for_event() -> None:
        async with asyncio.timeout(60):
            while not announced:
                announced.extend(await published_statuses(payments_app))
                await asyncio.sleep(0.01)

    payments_app.gateway.before_response = wait_for_event

    payment = await payments_app.confirm(await payments_app.open())

    assert announced == [("processing", payment.version - 1)]
    assert payment.status is PaymentStatus.CAPTURED
    assert await payments_app.event_types() == ["payment_status_changed", "payment_captured"]


async def test_timeout_of_the_provider_is_published_once(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_timeout_after")
    payments_app.gateway.before = TimeoutError()

    await payments_app.reconcile()

    assert await published_statuses(payments_app) == [("unknown", payment.version)]


async def test_slow_card_captures_payment(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_slow")

    assert payment.status is PaymentStatus.CAPTURED


async def test_timeout_without_charge_ends_as_failed(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_timeout_before")
    assert payment.status is PaymentStatus.UNKNOWN

    await payments_app.reconcile()

    payment = await payments_app.current(payment)
    assert (payment.status, payment.failure_code) == (PaymentStatus.FAILED, "provider_timeout")
    assert await payments_app.charged() == 0
    assert await payments_app.event_types() == ["payment_status_changed", "payment_failed"]


async def test_timeout_with_charge_ends_as_captured(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_timeout_after")
    assert payment.status is PaymentStatus.UNKNOWN

    await payments_app.reconcile()

    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED
    assert await payments_app.charged() == 1
    assert await payments_app.event_types() == ["payment_status_changed", "payment_captured"]


async def test_unknown_operation_is_not_reconciled_early(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_timeout_after")

    payments_app.clock.advance(10)
    await payments_app.run_periodic_jobs()

    assert (await payments_app.current(payment)).status is PaymentStatus.UNKNOWN
    with pytest.raises(PaymentInProgress) as error:
        await payments_app.confirm(payment)
    assert error.value.retry_after == 5


async def test_unresponsive_provider_is_queried_again_later(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_timeout_after")
    payments_app.gateway.before = TimeoutError()
    await payments_app.reconcile()
    assert (await payments_app.current(payment)).status is PaymentStatus.UNKNOWN

    await payments_app.reconcile()

    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED


async def test_charge_closed_by_reconciler_cannot_succeed_later(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open(1999)
    attempt = attempt_without_key()
    await payments_app.confirm(payment, "sandbox_timeout_before", attempt)
    await payments_app.reconcile()

    outcome = await payments_app.gateway.charge(charge_request(attempt.id))

    assert getattr(outcome, "code", None) == "provider_timeout"
    assert await payments_app.charged() == 0


@pytest.mark.parametrize("where", ["before", "after"])
async def test_crashed_confirm_is_reconciled(payments_app: PaymentsApp, where: str) -> None:
    payment = await payments_app.open()
    setattr(payments_app.gateway, where, Killed())
    with pytest.raises(Killed):
        await payments_app.confirm(payment)
    assert (await payments_app.current(payment)).status is PaymentStatus.PROCESSING

    await payments_app.reconcile()

    charged = where == "after"
    ended = PaymentStatus.CAPTURED if charged else PaymentStatus.FAILED
    assert (await payments_app.current(payment)).status is ended
    assert await payments_app.charged() == charged
    assert await payments_app.posting_count() == charged


@pytest.mark.parametrize("where", ["before", "after"])
async def test_crashed_confirm_resumes_on_retry_with_key(
    payments_app: PaymentsApp, where: str
) -> None:
    payment = await payments_app.open()
    setattr(payments_app.gateway, where, Killed())
    with pytest.raises(Killed):
        await payments_app.confirm_with_key(payment, "key")

    payments_app.clock.advance(15)
    response, replayed = await payments_app.confirm_with_key(payment, "key")

    assert (response.status, replayed) == (200, False)
    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED
    assert await payments_app.charged() == await payments_app.posting_count() == 1
    assert await payments_app.confirm_with_key(payment, "key") == (response, True)


async def test_retry_after_reconciliation_returns_outcome(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()
    payments_app.gateway.before = Killed()
    with pytest.raises(Killed):
        await payments_app.confirm_with_key(payment, "key")
    await payments_app.reconcile()
    asked = payments_app.gateway.calls

    response, _ = await payments_app.confirm_with_key(payment, "key")

    assert '"status":"failed"' in response.body
    assert payments_app.gateway.calls == asked
    assert await payments_app.charged() == 0


async def test_unavailable_provider_is_retried_with_same_id(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.open()
    payments_app.gateway.after = Unavailable(dependency="postgres")
    with pytest.raises(Unavailable):
        await payments_app.confirm_with_key(payment, "key")

    response, _ = await payments_app.confirm_with_key(payment, "key")

    assert '"status":"captured"' in response.body
    assert await payments_app.charged() == 1


async def test_a_captured_payment_is_not_charged_again(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid()

    with pytest.raises(InvalidPaymentTransition):
        await payments_app.confirm(payment)

    assert await payments_app.charged() == 1


async def test_an_unknown_method_changes_nothing(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()

    with pytest.raises(UnknownPaymentMethod) as error:
        await payments_app.confirm(payment, "sandbox_gold")

    assert error.value.details == {"payment_method": "sandbox_gold"}
    assert await payments_app.current(payment) == payment


async def test_other_customers_payment_cannot_be_confirmed(payments_app: PaymentsApp) -> None:
    payment, stranger = await payments_app.open(), user_context(new_id())

    with pytest.raises(PaymentNotFound) as error:
        await payments_app.payment_api.confirm(
            stranger, payment.payment_id, "sandbox_ok", attempt_without_key()
        )

    assert error.value.details == {"payment_id": str(payment.payment_id)}


async def test_other_customers_payment_is_not_found(payments_app: PaymentsApp) -> None:
    payment, stranger = await payments_app.open(), user_context(new_id())

    with pytest.raises(PaymentNotFound) as not_yours:
        await payments_app.payment_api.get_payment(stranger, payment.payment_id)
    with pytest.raises(PaymentNotFound):
        await payments_app.payment_api.list_operations(stranger, payment.payment_id, PageQuery())
    with pytest.raises(PaymentNotFound) as absent:
        await payments_app.payment_api.get_payment(stranger, new_id())

    assert str(not_yours.value.detail) == str(absent.value.detail)
    assert await payments_app.payment_api.get_payment(STAFF, payment.payment_id) == payment


async def test_unpaid_payment_expires(payments_app: PaymentsApp) -> None:
    overdue = [
        await payments_app.open(),
        await payments_app.confirm(await payments_app.open(), "sandbox_declined"),
        await payments_app.confirm(await payments_app.open(), "sandbox_action_required"),
    ]
    paid = await payments_app.paid()
    payments_app.clock.advance(15 * 60)

    with pytest.raises(InvalidPaymentTransition) as error:
        await payments_app.confirm(overdue[0])
    await payments_app.run_periodic_jobs()

    assert error.value.details == {"status": "expired", "allowed": []}
    for payment in overdue:
        now = await payments_app.current(payment)
        assert (now.status, now.version) == (PaymentStatus.EXPIRED, payment.version + 1)
    published = await published_statuses(payments_app)
    assert published.count(("expired", 2)) == 1
    assert published.count(("expired", 4)) == 2
    assert await payments_app.current(paid) == paid


async def test_an_expired_payment_cannot_be_confirmed(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()
    payments_app.clock.advance(15 * 60)
    await payments_app.run_periodic_jobs()

    with pytest.raises(InvalidPaymentTransition):
        await payments_app.confirm(payment)


async def test_every_provider_call_is_recorded(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(1000), "sandbox_declined")
    await payments_app.confirm(payment)
    await payments_app.refund(payment, 300)

    page = await payments_app.payment_api.list_operations(
        user_context(payment.user_id), payment.payment_id, PageQuery()
    )

    operations = [(one.kind.value, one.status.value, one.failure_code) for one in page.items]
    assert operations == [
        ("charge", "failed", "card_declined"),
        ("charge", "succeeded", None),
        ("refund", "succeeded", None),
    ]
    assert page.items[1].provider_reference
    assert page.items[2].kind is OperationKind.REFUND
    assert all(one.settled_at for one in page.items)


async def test_operations_are_paginated(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()
    for _ in range(3):
        await payments_app.confirm(payment, "sandbox_declined")
    ctx = user_context(payment.user_id)

    first = await payments_app.payment_api.list_operations(
        ctx, payment.payment_id, PageQuery(limit=2)
    )
    query = PageQuery(limit=2, cursor=first.next_cursor)
    second = await payments_app.payment_api.list_operations(ctx, payment.payment_id, query)

    ids = [one.operation_id for one in (*first.items, *second.items)]
    assert (len(first.items), len(second.items), len(set(ids))) == (2, 1, 3)
    assert second.next_cursor is None
    assert {one.status for one in first.items} == {OperationStatus.FAILED}


async def test_staff_refund_is_idempotent(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(1000)
    attempt, some = attempt_without_key(), Money(amount=400, currency="EUR")

    first = await payments_app.payment_api.refund(
        STAFF, payment.payment_id, some, "damaged", attempt
    )
    again = await payments_app.payment_api.refund(
        STAFF, payment.payment_id, some, "damaged", attempt
    )

    assert again == first
    assert first.reason == "damaged"
    page = await payments_app.payment_api.list_refunds(STAFF, payment.payment_id, PageQuery())
    assert page.items == (first,)
    assert (
        await payments_app.payment_api.get_refund(STAFF, payment.payment_id, first.refund_id)
        == first
    )


async def test_a_charge_is_no_refund(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid()
    page = await payments_app.payment_api.list_operations(STAFF, payment.payment_id, PageQuery())

    with pytest.raises(RefundNotFound):
        await payments_app.payment_api.get_refund(
            STAFF, payment.payment_id, page.items[0].operation_id
        )


async def test_customers_list_own_payments_and_staff_all(payments_app: PaymentsApp) -> None:
    mine = await payments_app.open()
    theirs = await payments_app.open()
    me = user_context(mine.user_id)

    own = await payments_app.payment_api.list_payments(me, PaymentQuery())
    other = await payments_app.payment_api.list_payments(me, PaymentQuery(user_id=theirs.user_id))
    everything = await payments_app.payment_api.list_payments(STAFF, PaymentQuery())
    of_one = await payments_app.payment_api.list_payments(STAFF, PaymentQuery(user_id=mine.user_id))

    assert own.items == of_one.items == (mine,)
    assert other.items == ()
    assert everything.items == (theirs, mine)


async def test_payments_are_filtered_and_sorted(payments_app: PaymentsApp) -> None:
    first, second = await payments_app.open(), await payments_app.open()
    paid = await payments_app.confirm(second)

    of_order = await payments_app.payment_api.list_payments(
        STAFF, PaymentQuery(order_id=first.order_id)
    )
    captured = await payments_app.payment_api.list_payments(
        STAFF, PaymentQuery(status=PaymentStatus.CAPTURED)
    )
    oldest = await payments_app.payment_api.list_payments(STAFF, PaymentQuery(sort="created_at"))

    assert of_order.items == (first,)
    assert captured.items == (paid,)
    assert oldest.items == (first, paid)


@pytest.mark.parametrize("sort", ["created_at", "-created_at"])
async def test_pagination_is_stable_during_inserts(payments_app: PaymentsApp, sort: str) -> None:
    opened = [await payments_app.open() for _ in range(5)]
    expected = opened if sort == "created_at" else opened[::-1]
    seen: list[PaymentView] = []

    query = PaymentQuery.model_validate({"limit": 2, "sort": sort})
    page = await payments_app.payment_api.list_payments(STAFF, query)
    seen += page.items
    late = await payments_app.open()
    while page.next_cursor:
        query = query.model_copy(update={"cursor": page.next_cursor})
        page = await payments_app.payment_api.list_payments(STAFF, query)
        seen += page.items

    assert seen == (expected if sort == "-created_at" else [*expected, late])


async def test_cursor_is_bound_to_its_list(payments_app: PaymentsApp) -> None:
    for _ in range(2):
        await payments_app.open()
    page = await payments_app.payment_api.list_payments(STAFF, PaymentQuery(limit=1))

    query = PaymentQuery(limit=1, cursor=page.next_cursor, sort="created_at")

    with pytest.raises(CursorInvalid):
        await payments_app.payment_api.list_payments(STAFF, query)


async def test_ledger_balances_match_payments(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(1000)
    await payments_app.refund(payment, 300)
    await payments_app.confirm(await payments_app.open(500, "JPY"))

    accounts = await payments_app.ledger.list_account_balances(STAFF)
    postings = await payments_app.ledger.list_postings(
        STAFF, PostingQuery(payment_id=payment.payment_id)
    )

    assert [(one.account, one.balance.amount, one.balance.currency) for one in accounts] == [
        ("customers:payments", -700, "EUR"),
        ("customers:payments", -500, "JPY"),
        ("provider:sandbox", 700, "EUR"),
        ("provider:sandbox", 500, "JPY"),
    ]
    assert [posting.kind.value for posting in postings.items] == ["refund", "capture"]
    for posting in postings.items:
        assert sum(entry.amount.amount for entry in posting.entries) == 0
    assert (await payments_app.ledger.verify(STAFF)).balanced


async def test_postings_are_paginated(payments_app: PaymentsApp) -> None:
    for _ in range(3):
        await payments_app.paid()

    first = await payments_app.ledger.list_postings(STAFF, PostingQuery(limit=2))
    second = await payments_app.ledger.list_postings(
        STAFF, PostingQuery(limit=2, cursor=first.next_cursor)
    )

    times = [one.created_at for one in (*first.items, *second.items)]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 3
    assert second.next_cursor is None


async def test_zero_amount_payment_is_captured_without_posting(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(0)

    assert payment.status is PaymentStatus.CAPTURED
    assert await payments_app.posting_count() == 0
