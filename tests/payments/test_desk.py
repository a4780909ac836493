"""What owners and staff are promised, on every storage."""

import pytest

from markethall.payments.contract import (
    InvalidPaymentTransition,
    OperationKind,
    OperationStatus,
    Payment,
    PaymentInProgress,
    PaymentNotFound,
    PaymentQuery,
    PaymentStatus,
    PostingQuery,
    RefundNotFound,
    UnknownMethod,
)
from markethall.shared.errors import Unavailable
from markethall.shared.ids import new_id
from markethall.shared.money import Money
from markethall.shared.pages import CursorInvalid, PageQuery
from tests.payments.conftest import STAFF, Killed, Stall, person, unkeyed


async def test_a_good_card_pays(stall: Stall) -> None:
    payment = await stall.confirm(await stall.open(1999))

    assert payment.status is PaymentStatus.CAPTURED
    assert payment.authorized == payment.captured == payment.amount
    assert await stall.charged() == 1
    assert await stall.event_types() == ["payment_captured"]
    assert await stall.posting_count() == 1


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("sandbox_declined", "card_declined"),
        ("sandbox_insufficient_funds", "insufficient_funds"),
    ],
)
async def test_a_refused_card_leaves_the_payment_payable(
    stall: Stall, method: str, code: str
) -> None:
    payment = await stall.confirm(await stall.open(), method)

    assert (payment.status, payment.failure_code) == (PaymentStatus.FAILED, code)
    assert await stall.event_types() == ["payment_failed"]
    assert (await stall.confirm(payment)).status is PaymentStatus.CAPTURED
    assert await stall.charged() == 1


async def test_a_card_that_asks_for_the_customer_captures_afterwards(stall: Stall) -> None:
    payment = await stall.confirm(await stall.open(), "sandbox_action_required")

    assert payment.status is PaymentStatus.REQUIRES_ACTION
    assert payment.next_action
    assert payment.next_action.startswith("https://")
    assert await stall.events() == []
    paid = await stall.confirm(payment)
    assert (paid.status, paid.next_action) == (PaymentStatus.CAPTURED, None)
    assert await stall.charged() == 1


async def test_a_slow_card_pays(stall: Stall) -> None:
    payment = await stall.confirm(await stall.open(), "sandbox_slow")

    assert payment.status is PaymentStatus.CAPTURED


async def test_no_answer_and_nothing_charged_ends_as_failed(stall: Stall) -> None:
    payment = await stall.confirm(await stall.open(), "sandbox_timeout_before")
    assert payment.status is PaymentStatus.UNKNOWN

    await stall.reconcile()

    payment = await stall.now(payment)
    assert (payment.status, payment.failure_code) == (PaymentStatus.FAILED, "provider_timeout")
    assert await stall.charged() == 0
    assert await stall.event_types() == ["payment_failed"]


async def test_no_answer_but_charged_ends_as_captured(stall: Stall) -> None:
    payment = await stall.confirm(await stall.open(), "sandbox_timeout_after")
    assert payment.status is PaymentStatus.UNKNOWN

    await stall.reconcile()

    assert (await stall.now(payment)).status is PaymentStatus.CAPTURED
    assert await stall.charged() == 1
    assert await stall.event_types() == ["payment_captured"]


async def test_unknown_is_not_asked_after_before_its_time(stall: Stall) -> None:
    payment = await stall.confirm(await stall.open(), "sandbox_timeout_after")

    stall.clock.turn(10)
    await stall.sweep()

    assert (await stall.now(payment)).status is PaymentStatus.UNKNOWN
    with pytest.raises(PaymentInProgress) as refusal:
        await stall.confirm(payment)
    assert refusal.value.retry_after == 5


async def test_a_provider_that_stays_silent_is_asked_again_later(stall: Stall) -> None:
    payment = await stall.confirm(await stall.open(), "sandbox_timeout_after")
    stall.wire.before = TimeoutError()
    await stall.reconcile()
    assert (await stall.now(payment)).status is PaymentStatus.UNKNOWN

    await stall.reconcile()

    assert (await stall.now(payment)).status is PaymentStatus.CAPTURED


async def test_a_charge_closed_by_the_reconciler_cannot_arrive_later(stall: Stall) -> None:
    payment = await stall.open(1999)
    attempt = unkeyed()
    await stall.confirm(payment, "sandbox_timeout_before", attempt)
    await stall.reconcile()

    outcome = await stall.wire.charge(attempt.id, payment.amount, "sandbox_ok")

    assert getattr(outcome, "code", None) == "provider_timeout"
    assert await stall.charged() == 0


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_confirm_that_died_is_driven_on_by_itself(stall: Stall, where: str) -> None:
    payment = await stall.open()
    setattr(stall.wire, where, Killed())
    with pytest.raises(Killed):
        await stall.confirm(payment)
    assert (await stall.now(payment)).status is PaymentStatus.PROCESSING

    await stall.reconcile()

    charged = where == "after"
    ended = PaymentStatus.CAPTURED if charged else PaymentStatus.FAILED
    assert (await stall.now(payment)).status is ended
    assert await stall.charged() == charged
    assert await stall.posting_count() == charged


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_confirm_that_died_goes_on_when_retried_with_its_key(
    stall: Stall, where: str
) -> None:
    payment = await stall.open()
    setattr(stall.wire, where, Killed())
    with pytest.raises(Killed):
        await stall.confirm_with_key(payment, "key")

    stall.clock.turn(15)
    answer, replayed = await stall.confirm_with_key(payment, "key")

    assert (answer.status, replayed) == (200, False)
    assert (await stall.now(payment)).status is PaymentStatus.CAPTURED
    assert await stall.charged() == await stall.posting_count() == 1
    assert await stall.confirm_with_key(payment, "key") == (answer, True)


async def test_a_retry_after_the_reconciler_reads_what_was_settled(stall: Stall) -> None:
    payment = await stall.open()
    stall.wire.before = Killed()
    with pytest.raises(Killed):
        await stall.confirm_with_key(payment, "key")
    await stall.reconcile()
    asked = stall.wire.asked

    answer, _ = await stall.confirm_with_key(payment, "key")

    assert '"status":"failed"' in answer.body
    assert stall.wire.asked == asked
    assert await stall.charged() == 0


async def test_a_provider_whose_store_is_away_is_asked_again_with_the_same_id(
    stall: Stall,
) -> None:
    payment = await stall.open()
    stall.wire.after = Unavailable(dependency="postgres")
    with pytest.raises(Unavailable):
        await stall.confirm_with_key(payment, "key")

    answer, _ = await stall.confirm_with_key(payment, "key")

    assert '"status":"captured"' in answer.body
    assert await stall.charged() == 1


async def test_a_captured_payment_is_not_charged_again(stall: Stall) -> None:
    payment = await stall.paid()

    with pytest.raises(InvalidPaymentTransition):
        await stall.confirm(payment)

    assert await stall.charged() == 1


async def test_an_unknown_method_changes_nothing(stall: Stall) -> None:
    payment = await stall.open()

    with pytest.raises(UnknownMethod) as refusal:
        await stall.confirm(payment, "sandbox_gold")

    assert refusal.value.details == {"payment_method": "sandbox_gold"}
    assert await stall.now(payment) == payment


async def test_nobody_pays_for_somebody_else(stall: Stall) -> None:
    payment = await stall.open()

    for caller in (person(new_id()), STAFF):
        with pytest.raises(PaymentNotFound) as refusal:
            await stall.desk.confirm(caller, payment.payment_id, "sandbox_ok", unkeyed())
        assert refusal.value.details == {"payment_id": str(payment.payment_id)}


async def test_a_payment_that_is_not_yours_does_not_exist(stall: Stall) -> None:
    payment, stranger = await stall.open(), person(new_id())

    with pytest.raises(PaymentNotFound) as not_yours:
        await stall.desk.payment(stranger, payment.payment_id)
    with pytest.raises(PaymentNotFound):
        await stall.desk.operations(stranger, payment.payment_id, PageQuery())
    with pytest.raises(PaymentNotFound) as absent:
        await stall.desk.payment(stranger, new_id())

    assert str(not_yours.value.detail) == str(absent.value.detail)
    assert await stall.desk.payment(STAFF, payment.payment_id) == payment


async def test_an_unpaid_payment_expires_by_itself(stall: Stall) -> None:
    overdue = [
        await stall.open(),
        await stall.confirm(await stall.open(), "sandbox_declined"),
        await stall.confirm(await stall.open(), "sandbox_action_required"),
    ]
    paid = await stall.paid()
    stall.clock.turn(15 * 60)

    with pytest.raises(InvalidPaymentTransition) as refusal:
        await stall.confirm(overdue[0])
    await stall.sweep()

    assert refusal.value.details == {"status": "expired", "allowed": []}
    for payment in overdue:
        now = await stall.now(payment)
        assert (now.status, now.version) == (PaymentStatus.EXPIRED, payment.version + 1)
    assert await stall.now(paid) == paid


async def test_an_expired_payment_cannot_be_confirmed(stall: Stall) -> None:
    payment = await stall.open()
    stall.clock.turn(15 * 60)
    await stall.sweep()

    with pytest.raises(InvalidPaymentTransition):
        await stall.confirm(payment)


async def test_every_call_of_the_provider_is_told(stall: Stall) -> None:
    payment = await stall.confirm(await stall.open(1000), "sandbox_declined")
    await stall.confirm(payment)
    await stall.refund(payment, 300)

    page = await stall.desk.operations(person(payment.user_id), payment.payment_id, PageQuery())

    told = [(one.kind.value, one.status.value, one.failure_code) for one in page.items]
    assert told == [
        ("charge", "failed", "card_declined"),
        ("charge", "succeeded", None),
        ("refund", "succeeded", None),
    ]
    assert page.items[1].provider_reference
    assert page.items[2].kind is OperationKind.REFUND
    assert all(one.settled_at for one in page.items)


async def test_operations_come_in_pages(stall: Stall) -> None:
    payment = await stall.open()
    for _ in range(3):
        await stall.confirm(payment, "sandbox_declined")
    call = person(payment.user_id)

    first = await stall.desk.operations(call, payment.payment_id, PageQuery(limit=2))
    query = PageQuery(limit=2, cursor=first.next_cursor)
    second = await stall.desk.operations(call, payment.payment_id, query)

    ids = [one.operation_id for one in (*first.items, *second.items)]
    assert (len(first.items), len(second.items), len(set(ids))) == (2, 1, 3)
    assert second.next_cursor is None
    assert {one.status for one in first.items} == {OperationStatus.FAILED}


async def test_staff_refund_once_per_attempt(stall: Stall) -> None:
    payment = await stall.paid(1000)
    attempt, some = unkeyed(), Money(amount=400, currency="EUR")

    first = await stall.desk.refund(STAFF, payment.payment_id, some, "damaged", attempt)
    again = await stall.desk.refund(STAFF, payment.payment_id, some, "damaged", attempt)

    assert again == first
    assert first.reason == "damaged"
    page = await stall.desk.refunds(STAFF, payment.payment_id, PageQuery())
    assert page.items == (first,)
    assert await stall.desk.refund_of(STAFF, payment.payment_id, first.refund_id) == first


async def test_a_charge_is_no_refund(stall: Stall) -> None:
    payment = await stall.paid()
    page = await stall.desk.operations(STAFF, payment.payment_id, PageQuery())

    with pytest.raises(RefundNotFound):
        await stall.desk.refund_of(STAFF, payment.payment_id, page.items[0].operation_id)


async def test_owners_list_their_own_and_staff_all(stall: Stall) -> None:
    mine = await stall.open()
    theirs = await stall.open()
    me = person(mine.user_id)

    own = await stall.desk.payments(me, PaymentQuery())
    other = await stall.desk.payments(me, PaymentQuery(user_id=theirs.user_id))
    everything = await stall.desk.payments(STAFF, PaymentQuery())
    of_one = await stall.desk.payments(STAFF, PaymentQuery(user_id=mine.user_id))

    assert own.items == of_one.items == (mine,)
    assert other.items == ()
    assert everything.items == (theirs, mine)


async def test_payments_are_filtered_and_sorted(stall: Stall) -> None:
    first, second = await stall.open(), await stall.open()
    paid = await stall.confirm(second)

    of_order = await stall.desk.payments(STAFF, PaymentQuery(order_id=first.order_id))
    captured = await stall.desk.payments(STAFF, PaymentQuery(status=PaymentStatus.CAPTURED))
    oldest = await stall.desk.payments(STAFF, PaymentQuery(sort="created_at"))

    assert of_order.items == (first,)
    assert captured.items == (paid,)
    assert oldest.items == (first, paid)


@pytest.mark.parametrize("sort", ["created_at", "-created_at"])
async def test_pages_are_stable_while_payments_are_opened(stall: Stall, sort: str) -> None:
    opened = [await stall.open() for _ in range(5)]
    expected = opened if sort == "created_at" else opened[::-1]
    seen: list[Payment] = []

    query = PaymentQuery.model_validate({"limit": 2, "sort": sort})
    page = await stall.desk.payments(STAFF, query)
    seen += page.items
    late = await stall.open()
    while page.next_cursor:
        query = query.model_copy(update={"cursor": page.next_cursor})
        page = await stall.desk.payments(STAFF, query)
        seen += page.items

    assert seen == (expected if sort == "-created_at" else [*expected, late])


async def test_a_cursor_is_good_for_its_own_list_only(stall: Stall) -> None:
    for _ in range(2):
        await stall.open()
    page = await stall.desk.payments(STAFF, PaymentQuery(limit=1))

    query = PaymentQuery(limit=1, cursor=page.next_cursor, sort="created_at")

    with pytest.raises(CursorInvalid):
        await stall.desk.payments(STAFF, query)


async def test_the_ledger_tells_where_the_money_is(stall: Stall) -> None:
    payment = await stall.paid(1000)
    await stall.refund(payment, 300)
    await stall.confirm(await stall.open(500, "JPY"))

    accounts = await stall.desk.accounts(STAFF)
    postings = await stall.desk.postings(STAFF, PostingQuery(payment_id=payment.payment_id))

    assert [(one.account, one.balance.amount, one.balance.currency) for one in accounts] == [
        ("customers:payments", -700, "EUR"),
        ("customers:payments", -500, "JPY"),
        ("provider:sandbox", 700, "EUR"),
        ("provider:sandbox", 500, "JPY"),
    ]
    assert [posting.kind.value for posting in postings.items] == ["refund", "capture"]
    for posting in postings.items:
        assert sum(entry.amount.amount for entry in posting.entries) == 0
    assert (await stall.desk.verify(STAFF)).balanced


async def test_postings_come_in_pages(stall: Stall) -> None:
    for _ in range(3):
        await stall.paid()

    first = await stall.desk.postings(STAFF, PostingQuery(limit=2))
    second = await stall.desk.postings(STAFF, PostingQuery(limit=2, cursor=first.next_cursor))

    times = [one.created_at for one in (*first.items, *second.items)]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 3
    assert second.next_cursor is None


async def test_a_free_order_is_paid_without_moving_money(stall: Stall) -> None:
    payment = await stall.paid(0)

    assert payment.status is PaymentStatus.CAPTURED
    assert await stall.posting_count() == 0
