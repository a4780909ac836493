"""The ledger: postings, fees, hash chains and the comparison with the operations."""

import asyncio
import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.ledger import PostingQuery, PostingView
from markethall.payments.contract.statuses import LedgerAccountKind, LedgerProblem, PostingKind
from markethall.payments.domain.ledger import (
    CHAIN_COUNT,
    ChainCheck,
    ChainPosition,
    Posting,
    RecordedPosting,
    compare_with_operations,
    next_position,
    postings_of,
)
from markethall.payments.domain.operation import Operation, Outcome, Succeeded
from markethall.payments.ports import OperationKind, OperationRequest
from markethall.payments.service.report_comparison import FeeResult
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import PageQuery
from tests.payments.conftest import STAFF, PaymentsApp, build_payments_app, user_context

FEE = Money(amount=83, currency="EUR")
FEE_USD = Money(amount=91, currency="USD")


async def charge_of(payments_app: PaymentsApp, payment: PaymentView) -> Operation:
    async with payments_app.container.database().read_session() as store:
        (charge,) = await store.list_operations(payment.payment_id, OperationKind.CHARGE, None, 10)
    return charge


async def postings(payments_app: PaymentsApp, **filters: Any) -> tuple[PostingView, ...]:
    page = await payments_app.ledger.list_postings(STAFF, PostingQuery(limit=100, **filters))
    return page.items


async def balances(payments_app: PaymentsApp) -> dict[tuple[str, str], int]:
    found = await payments_app.ledger.list_account_balances(STAFF)
    return {(one.account, one.balance.currency): one.balance.amount for one in found}


def report_fee(payments_app: PaymentsApp, fee: Money) -> None:
    """Let the provider report this fee with every charge."""
    charge = payments_app.gateway.charge

    async def charge_with_fee(request: OperationRequest) -> Outcome:
        outcome = await charge(request)
        return replace(outcome, fee=fee) if isinstance(outcome, Succeeded) else outcome

    payments_app.gateway.charge = charge_with_fee  # type: ignore[method-assign]  # adds a fee


# Fees


async def test_fee_of_a_charge_is_posted(payments_app: PaymentsApp) -> None:
    report_fee(payments_app, FEE)

    payment = await payments_app.paid(1999)

    found = await postings(payments_app, payment_id=payment.payment_id)
    capture, fee = sorted(found, key=lambda posting: posting.sequence)
    assert (fee.kind, capture.kind) == (PostingKind.FEE, PostingKind.CAPTURE)
    assert [(entry.account, entry.amount) for entry in fee.entries] == [
        ("fees:sandbox", FEE),
        ("provider:sandbox", Money(amount=-83, currency="EUR")),
    ]
    assert await balances(payments_app) == {
        ("customers:payments", "EUR"): -1999,
        ("fees:sandbox", "EUR"): 83,
        ("provider:sandbox", "EUR"): 1999 - 83,
    }
    assert (await payments_app.ledger.verify(STAFF)).intact


async def test_fee_account_is_an_expense(payments_app: PaymentsApp) -> None:
    report_fee(payments_app, FEE)
    await payments_app.paid()

    accounts = await payments_app.ledger.list_account_balances(STAFF)

    assert {one.account: one.kind for one in accounts} == {
        "customers:payments": LedgerAccountKind.LIABILITY,
        "fees:sandbox": LedgerAccountKind.EXPENSE,
        "provider:sandbox": LedgerAccountKind.ASSET,
    }


async def test_fee_in_another_currency_is_posted_in_that_currency(
    payments_app: PaymentsApp,
) -> None:
    report_fee(payments_app, FEE_USD)

    await payments_app.paid(1999)

    assert await balances(payments_app) == {
        ("customers:payments", "EUR"): -1999,
        ("provider:sandbox", "EUR"): 1999,
        ("fees:sandbox", "USD"): 91,
        ("provider:sandbox", "USD"): -91,
    }
    assert (await payments_app.ledger.verify(STAFF)).intact


async def test_later_fee_is_recorded_once(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(1999)
    charge = await charge_of(payments_app, payment)
    record_fee = payments_app.container.record_fee().record_fee

    results = [await record_fee(charge.operation_id, FEE) for _ in range(3)]
    other = await record_fee(charge.operation_id, FEE_USD)

    assert results == [FeeResult.RECORDED, FeeResult.UNCHANGED, FeeResult.UNCHANGED]
    assert other is FeeResult.DIFFERS
    assert await payments_app.posting_count() == 2
    assert (await balances(payments_app))["fees:sandbox", "EUR"] == 83


async def test_twenty_reports_of_a_fee_record_it_once(payments_app: PaymentsApp) -> None:
    charge = await charge_of(payments_app, await payments_app.paid())
    record_fee = payments_app.container.record_fee().record_fee

    results = await asyncio.gather(*(record_fee(charge.operation_id, FEE) for _ in range(20)))

    assert sorted(results) == [FeeResult.RECORDED, *[FeeResult.UNCHANGED] * 19]
    assert await payments_app.posting_count() == 2


async def test_fee_of_zero_has_no_posting(payments_app: PaymentsApp) -> None:
    charge = await charge_of(payments_app, await payments_app.paid())
    record_fee = payments_app.container.record_fee().record_fee
    zero = Money(amount=0, currency="EUR")

    assert await record_fee(charge.operation_id, zero) is FeeResult.RECORDED
    assert await record_fee(charge.operation_id, zero) is FeeResult.UNCHANGED
    assert await payments_app.posting_count() == 1


async def test_returned_fee_is_a_debit_of_the_provider(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(1999)
    refund = await payments_app.refund(payment)
    returned = Money(amount=-50, currency="EUR")

    await payments_app.container.record_fee().record_fee(refund.refund_id, returned)

    found = await balances(payments_app)
    assert (found["fees:sandbox", "EUR"], found["provider:sandbox", "EUR"]) == (-50, 50)
    assert (await payments_app.ledger.verify(STAFF)).intact


async def test_failed_or_unknown_operation_takes_no_fee(payments_app: PaymentsApp) -> None:
    declined = await payments_app.confirm(await payments_app.open(), "sandbox_declined")
    charge = await charge_of(payments_app, declined)
    record_fee = payments_app.container.record_fee().record_fee

    results = {await record_fee(charge.operation_id, FEE), await record_fee(new_id(), FEE)}

    assert results == {FeeResult.NO_SUCCEEDED_OPERATION}
    assert await payments_app.posting_count() == 0


async def test_only_staff_see_the_fee_of_an_operation(payments_app: PaymentsApp) -> None:
    report_fee(payments_app, FEE)
    payment = await payments_app.paid()
    owner = user_context(payment.user_id)

    for ctx, fee in ((STAFF, FEE), (owner, None)):
        page = await payments_app.payment_api.list_operations(ctx, payment.payment_id, PageQuery())
        assert [one.fee for one in page.items] == [fee]


# Hash chains


async def test_each_hash_covers_the_previous_one_and_the_content(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.paid(1999)
    await payments_app.refund(payment, 99)

    refund, capture = await postings(payments_app)

    previous = bytes(32)
    for posting, sequence in ((capture, 1), (refund, 2)):
        content = (
            f'["{posting.posting_id}","{posting.payment_id}","{posting.operation_id}",'
            f'"{posting.kind}","EUR",'
            "["
            + ",".join(
                f'["{entry.account}",{entry.amount.amount}]'
                for entry in sorted(posting.entries, key=lambda entry: entry.account)
            )
            + f'],"{posting.created_at.isoformat(timespec="microseconds")}"]'
        )
        previous = hashlib.sha256(previous + content.encode()).digest()
        assert (posting.hash, posting.sequence) == (previous.hex(), sequence)


async def test_concurrent_postings_have_numbers_without_gaps(payments_app: PaymentsApp) -> None:
    payments = [await payments_app.open(100) for _ in range(60)]

    await asyncio.gather(*map(payments_app.confirm, payments))
    await asyncio.gather(*(payments_app.refund(payment, 1) for payment in payments))

    report = await payments_app.ledger.verify(STAFF)
    assert report.intact, report.findings
    assert report.posting_count == sum(head.sequence for head in report.chains) == 120
    assert 1 < len(report.chains) <= CHAIN_COUNT


async def test_posting_of_a_failed_transaction_leaves_no_gap(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(100)
    (capture,) = await charge_postings(payments_app, payment)
    fee = replace(capture, posting_id=new_id(), kind=PostingKind.FEE)

    with pytest.raises(ZeroDivisionError):
        await add_and_fail(payments_app, fee)
    await payments_app.refund(payment, 30)

    assert [one.sequence for one in await postings(payments_app)] == [2, 1]
    assert (await payments_app.ledger.verify(STAFF)).intact


async def add_and_fail(payments_app: PaymentsApp, posting: Posting) -> None:
    async with payments_app.container.database().transaction() as store:
        await store.add_posting(posting)
        raise ZeroDivisionError


async def charge_postings(payments_app: PaymentsApp, payment: PaymentView) -> tuple[Posting, ...]:
    return postings_of(await charge_of(payments_app, payment))


async def test_rebuilt_ledger_has_the_same_postings(payments_app: PaymentsApp) -> None:
    report_fee(payments_app, FEE)
    payment = await payments_app.paid(1999)
    await payments_app.refund(payment, 500)
    await payments_app.confirm(await payments_app.open(), "sandbox_declined")

    async with payments_app.container.database().read_session() as store:
        operations = await store.list_succeeded_operations(None, None)

    rebuilt = {posting.posting_id for one in operations for posting in postings_of(one)}
    assert rebuilt == {one.posting_id for one in await postings(payments_app)}
    assert len(rebuilt) == 3


async def test_large_ledger_is_verified_in_pages(
    payments_app: PaymentsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("markethall.payments.service.verify_ledger._PAGE_SIZE", 2)
    monkeypatch.setattr("markethall.payments.service.trial_balance._PAGE_SIZE", 2)
    for _ in range(3):
        payment = await payments_app.paid(100)
        for _ in range(4):
            await payments_app.refund(payment, 1)

    report = await payments_app.ledger.verify(STAFF)

    assert (report.intact, report.posting_count) == (True, 15)
    assert await balances(payments_app) == {
        ("customers:payments", "EUR"): -288,
        ("provider:sandbox", "EUR"): 288,
    }


def due_in(payments_app: PaymentsApp, seconds: float) -> CallContext:
    """Return a context of staff with a deadline in this number of seconds."""
    deadline = payments_app.clock() + timedelta(seconds=seconds)
    return STAFF.model_copy(update={"deadline": deadline})


async def test_verification_without_time_tells_how_far_it_got(payments_app: PaymentsApp) -> None:
    await payments_app.paid(100)

    report = await payments_app.ledger.verify(due_in(payments_app, -1))

    assert report.unfinished_checks == ("hash_chains", "payments", "operations")
    assert (report.posting_count, report.posting_total) == (0, 1)
    assert (report.balanced, report.intact, report.findings) == (False, False, ())


async def test_finished_verification_has_no_unfinished_checks(payments_app: PaymentsApp) -> None:
    await payments_app.paid(100)

    for ctx in (STAFF, due_in(payments_app, 3600)):
        report = await payments_app.ledger.verify(ctx)
        assert (report.unfinished_checks, report.intact) == ((), True)
        assert report.posting_count == report.posting_total == 1


async def test_concurrent_requests_share_one_verification(payments_app: PaymentsApp) -> None:
    await payments_app.paid(100)
    ctx = due_in(payments_app, 3600)

    first, *others = await asyncio.gather(*(payments_app.ledger.verify(ctx) for _ in range(5)))
    await payments_app.paid(100)
    later = await payments_app.ledger.verify(ctx)

    assert all(other is first for other in others)
    assert (first.posting_count, later.posting_count) == (1, 2)


# Findings in a chain that was changed


def build_chain(operations: list[Operation]) -> list[RecordedPosting]:
    recorded: list[RecordedPosting] = []
    for posting in (posting for one in operations for posting in postings_of(one)):
        head = recorded[-1].position if recorded else None
        recorded.append(RecordedPosting(posting, next_position(0, head, posting)))
    return recorded


def check(recorded: list[RecordedPosting], head: ChainPosition | None) -> list[Any]:
    chain = ChainCheck(0, head)
    findings = [finding for one in recorded for finding in chain.check(one)]
    return [(one.problem, one.sequence) for one in [*findings, *chain.finish()]]


@pytest.fixture
async def operations() -> list[Operation]:
    payments_app = build_payments_app("memory", None)
    payment = await payments_app.paid(1000)
    for _ in range(4):
        await payments_app.refund(payment, 1)
    async with payments_app.container.database().read_session() as store:
        return list(await store.list_succeeded_operations(None, None))


def test_unchanged_chain_has_no_findings(operations: list[Operation]) -> None:
    chain = build_chain(operations)

    assert check(chain, chain[-1].position) == []
    assert list(compare_with_operations(operations, chain)) == []


def test_recomputed_hash_of_a_changed_posting_breaks_the_next(
    operations: list[Operation],
) -> None:
    chain = build_chain(operations)
    changed = replace(chain[2].posting, created_at=chain[4].posting.created_at)
    tampered = RecordedPosting(changed, next_position(0, chain[1].position, changed))

    found = check([*chain[:2], tampered, *chain[3:]], chain[-1].position)

    assert found == [(LedgerProblem.HASH_DIFFERS, 4)]


def test_recomputed_hash_of_the_last_posting_differs_from_the_head(
    operations: list[Operation],
) -> None:
    chain = build_chain(operations)
    changed = replace(chain[4].posting, created_at=chain[3].posting.created_at)
    tampered = RecordedPosting(changed, next_position(0, chain[3].position, changed))

    assert check([*chain[:4], tampered], chain[-1].position) == [(LedgerProblem.HEAD_DIFFERS, 5)]


def test_posting_after_the_head_is_found(operations: list[Operation]) -> None:
    chain = build_chain(operations)

    assert check(chain, chain[3].position) == [(LedgerProblem.POSTING_AFTER_HEAD, 5)]
    assert check(chain[:1], None) == [(LedgerProblem.POSTING_AFTER_HEAD, 1)]


def test_a_ledger_written_anew_still_differs_from_its_operations(
    operations: list[Operation],
) -> None:
    forged = [replace(operations[0], amount=999), *operations[1:]]
    chain = build_chain(forged)

    assert check(chain, chain[-1].position) == []
    (finding,) = compare_with_operations(operations, chain)
    assert finding.problem is LedgerProblem.DIFFERS_FROM_OPERATION
    assert finding.posting_id == chain[0].posting.posting_id
