"""The integrity checks of payments."""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from markethall.payments.contract.ledger import LedgerFinding
from markethall.payments.domain.integrity import (
    ChargeSums,
    PaymentSums,
    ProviderCharge,
    Waiting,
    judge_charges,
    judge_limits,
    judge_operations,
    judge_provider_charge,
    judge_unknown_charge,
    judge_waiting,
)
from markethall.payments.ports.integrity import PaymentIntegrityReads
from markethall.payments.service.verify_ledger import LedgerResults, VerifyLedger
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.integrity import Findings, IntegrityCheck, OffendingRow, scan_pages
from markethall.shared.persistence.database import SnapshotDatabase

# while the provider answers, an operation and its consequences are settled within this time
MAX_OPEN_TIME: Final = timedelta(minutes=15)


class PaymentIntegrity:
    def __init__(
        self, snapshots: SnapshotDatabase[PaymentIntegrityReads], verify: VerifyLedger, clock: Clock
    ) -> None:
        self._snapshots = snapshots
        self._verify = verify
        self._clock = clock

    def list_checks(self) -> Sequence[IntegrityCheck]:
        return [*self._amount_checks(), self._ledger_check(), *self._progress_checks()]

    def _amount_checks(self) -> Sequence[IntegrityCheck]:
        return [
            self._payment_check(
                "O2.amounts_within_limits",
                "Not more is captured than authorized, and not more refunded than captured.",
                judge_limits,
            ),
            self._payment_check(
                "O2.amounts_equal_operations",
                "The amounts of a payment are the sums of its operations.",
                judge_operations,
            ),
            self._payment_check(
                "O2.one_charge_per_payment",
                "At most one charge of a payment has succeeded.",
                judge_charges,
            ),
            IntegrityCheck(
                "O2.sandbox_agrees",
                "The sandbox provider has recorded the same amounts for each charge.",
                self._compare_with_sandbox,
            ),
        ]

    def _ledger_check(self) -> IntegrityCheck:
        return IntegrityCheck(
            "O4.ledger_intact",
            "Each posting balances and follows from its operation, and the chains are unbroken.",
            self._verify_ledger,
        )

    def _progress_checks(self) -> Sequence[IntegrityCheck]:
        return [
            self._progress_check(
                "O8.operations_settle",
                "No outcome of an operation stays unknown for 15 minutes.",
                Waiting.OPEN_OPERATIONS,
            ),
            self._progress_check(
                "O8.payments_expire",
                "No payment can be paid 15 minutes after its expiry.",
                Waiting.OVERDUE_PAYMENTS,
            ),
            self._progress_check(
                "O8.webhooks_applied",
                "No webhook of a known operation is pending for 15 minutes.",
                Waiting.UNAPPLIED_WEBHOOKS,
            ),
            self._progress_check(
                "O8.money_after_end_refunded",
                "Money of an ended payment is refunded within 15 minutes.",
                Waiting.MONEY_AFTER_END,
            ),
        ]

    def _payment_check(
        self, check_id: str, rule: str, judge: Callable[[PaymentSums], Iterable[OffendingRow]]
    ) -> IntegrityCheck:
        async def find(findings: Findings, _: timedelta) -> None:
            async with self._snapshots.snapshot() as reads:
                await scan_pages(
                    reads.list_payment_sums, lambda sums: sums.payment_id, judge, findings
                )

        return IntegrityCheck(check_id, rule, find)

    def _progress_check(self, check_id: str, rule: str, kind: Waiting) -> IntegrityCheck:
        async def find(findings: Findings, grace: timedelta) -> None:
            before = self._clock() - max(grace, MAX_OPEN_TIME)
            async with self._snapshots.snapshot() as reads:
                await scan_pages(
                    lambda after, limit: reads.list_waiting(kind, before, after, limit),
                    lambda waiting: waiting.key,
                    judge_waiting,
                    findings,
                )

        return IntegrityCheck(check_id, rule, find)

    async def _verify_ledger(self, findings: Findings, _: timedelta) -> None:
        results = LedgerResults()
        try:
            await self._verify.verify(rebuild=True, results=results)
        finally:
            # report the findings even if the check times out or the database fails
            findings.count_checked(results.posting_count)
            findings.add(*map(_ledger_row, results.findings))
            findings.violations = results.finding_count

    async def _compare_with_sandbox(self, findings: Findings, _: timedelta) -> None:
        async with self._snapshots.snapshot() as reads:
            await scan_pages(
                lambda after, limit: _list_compared(reads, after, limit),
                lambda compared: compared[0].operation_id,
                lambda compared: judge_provider_charge(*compared),
                findings,
            )
            await scan_pages(
                lambda after, limit: _list_sandbox_charges(reads, after, limit),
                lambda known: known[0].operation_id,
                lambda known: () if known[1] else judge_unknown_charge(known[0]),
                findings,
            )


def _ledger_row(finding: LedgerFinding) -> OffendingRow:
    fields = finding.model_dump(exclude={"problem"}, exclude_none=True)
    place = " ".join(f"{name}={value}" for name, value in fields.items())
    return OffendingRow(row=f"posting {place}", problem=finding.problem.replace("_", " "))


async def _list_compared(
    reads: PaymentIntegrityReads, after: UUID | None, limit: int
) -> Sequence[tuple[ChargeSums, ProviderCharge | None]]:
    """Return a page of our charges, each with the record of the sandbox."""
    ours = await reads.list_sandbox_charge_sums(after, limit)
    theirs = await reads.get_sandbox_charges([charge.operation_id for charge in ours])
    return [(charge, theirs.get(charge.operation_id)) for charge in ours]


async def _list_sandbox_charges(
    reads: PaymentIntegrityReads, after: UUID | None, limit: int
) -> Sequence[tuple[ProviderCharge, bool]]:
    """Return a page of charges at the sandbox, each with whether its operation exists here."""
    charges = await reads.list_sandbox_charges(after, limit)
    known = await reads.get_known_operations([charge.operation_id for charge in charges])
    return [(charge, charge.operation_id in known) for charge in charges]
