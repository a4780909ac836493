"""Rules between payments, their operations and the sandbox's own ledger."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from markethall.shared.kernel.integrity import OffendingRow


@dataclass(frozen=True)
class PaymentSums:
    """The amounts of a payment, and the sums of its operations, in minor units.

    `charged_count` is the number of succeeded charges and authorizations. `operations_…` sum
    succeeded operations, `operations_refunding` open refunds. `other_currency_count` counts the
    operations in another currency.
    """

    payment_id: UUID
    status: str
    amount: int
    authorized: int
    captured: int
    refunded: int
    refunding: int
    charged_count: int
    operations_captured: int
    operations_refunded: int
    operations_refunding: int
    other_currency_count: int


@dataclass(frozen=True)
class ChargeSums:
    """The amounts of one charge or authorization at a provider, as this shop has recorded them.

    `open_…` are the amounts of operations whose outcome is not known yet. `awaits_action` means
    that the customer may still finish the charge at the provider.
    """

    operation_id: UUID
    currency: str
    captured: int
    refunded: int
    open_captured: int
    open_refunded: int
    awaits_action: bool


@dataclass(frozen=True)
class ProviderCharge:
    """The amounts of one charge as the provider has recorded them."""

    operation_id: UUID
    currency: str
    captured: int
    refunded: int


class Waiting(StrEnum):
    """The kinds of rows that must not wait for long, and the time from which each one waits."""

    # operations whose outcome is not known, since their creation
    OPEN_OPERATIONS = "open_operations"
    # payable and authorized payments, since `expires_at`
    OVERDUE_PAYMENTS = "overdue_payments"
    # pending webhook events whose operation exists, since their receipt
    UNAPPLIED_WEBHOOKS = "unapplied_webhooks"
    # ended payments whose money is not refunded, since their latest operation
    MONEY_AFTER_END = "money_after_end"


@dataclass(frozen=True)
class WaitingRow:
    """A row that waits too long: its kind (`name`), its id, and the start of the wait."""

    name: str
    row_id: str
    since: datetime
    problem: str

    @property
    def key(self) -> tuple[datetime, str]:
        return self.since, self.row_id


def judge_limits(sums: PaymentSums) -> Iterator[OffendingRow]:
    if not 0 <= sums.captured <= sums.authorized <= sums.amount:
        yield _payment_row(
            sums, f"captured is {sums.captured}, authorized {sums.authorized}, amount {sums.amount}"
        )
    if not 0 <= sums.refunded + sums.refunding <= sums.captured:
        yield _payment_row(
            sums,
            f"refunded is {sums.refunded}, refunding {sums.refunding}, captured {sums.captured}",
        )


def judge_operations(sums: PaymentSums) -> Iterator[OffendingRow]:
    for name, recorded, operations in (
        ("captured", sums.captured, sums.operations_captured),
        ("refunded", sums.refunded, sums.operations_refunded),
        ("refunding", sums.refunding, sums.operations_refunding),
    ):
        if recorded != operations:
            yield _payment_row(sums, f"{name} is {recorded}, its operations have {operations}")
    if sums.other_currency_count:
        yield _payment_row(
            sums, f"{sums.other_currency_count} of its operations have another currency"
        )


def judge_charges(sums: PaymentSums) -> Iterator[OffendingRow]:
    if sums.charged_count > 1:
        yield _payment_row(sums, f"{sums.charged_count} charges have succeeded")


def judge_provider_charge(
    ours: ChargeSums, theirs: ProviderCharge | None
) -> Iterator[OffendingRow]:
    """Compare a charge with the provider's record.

    The provider may be ahead by the operations whose outcome is not known yet.
    """
    if ours.awaits_action:
        return
    theirs = theirs or ProviderCharge(ours.operation_id, ours.currency, 0, 0)
    row = f"operation operation_id={ours.operation_id}"
    if theirs.currency != ours.currency and (theirs.captured or ours.captured):
        yield OffendingRow(
            row=row, problem=f"currency is {ours.currency}, at the provider {theirs.currency}"
        )
    # a charge that is recorded as failed may have been taken and given back by the provider
    is_settled_by_refund = not ours.captured and theirs.captured == theirs.refunded
    for name, own, own_open, other in (
        ("captured", ours.captured, ours.open_captured, theirs.captured),
        ("refunded", ours.refunded, ours.open_refunded, theirs.refunded),
    ):
        if not own <= other <= own + own_open and not is_settled_by_refund:
            yield OffendingRow(row=row, problem=f"{name} is {own}, at the provider {other}")


def judge_unknown_charge(charge: ProviderCharge) -> Iterator[OffendingRow]:
    yield OffendingRow(
        row=f"charge of the provider, operation_id={charge.operation_id}",
        problem=f"{charge.captured - charge.refunded} {charge.currency} were taken,"
        " but there is no such operation",
    )


def judge_waiting(waiting: WaitingRow) -> Iterator[OffendingRow]:
    yield OffendingRow(
        row=f"{waiting.name}={waiting.row_id}",
        problem=f"{waiting.problem} {waiting.since.isoformat()}",
    )


def _payment_row(sums: PaymentSums, problem: str) -> OffendingRow:
    return OffendingRow(row=f"payment payment_id={sums.payment_id}", problem=problem)
