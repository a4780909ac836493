from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from markethall.inventory.reservations.domain.integrity import (
    ReservedSum,
    judge_limits,
    judge_on_hand,
    judge_overdue,
    judge_reserved,
)
from markethall.inventory.reservations.ports import IntegrityReads
from markethall.inventory.reservations.service.jobs import ReservationExpiryJob
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.integrity import (
    Findings,
    IntegrityCheck,
    OffendingRow,
    Repair,
    scan_pages,
)
from markethall.shared.persistence.database import SnapshotDatabase


class InventoryIntegrity:
    def __init__(
        self,
        snapshots: SnapshotDatabase[IntegrityReads],
        reservation_expiry: ReservationExpiryJob,
        clock: Clock,
    ) -> None:
        self._snapshots = snapshots
        self._reservation_expiry = reservation_expiry
        self._clock = clock

    def list_checks(self) -> Sequence[IntegrityCheck]:
        return [
            IntegrityCheck(
                "O1.on_hand_equals_movements",
                "The units on hand of a stock row are the sum of its movements.",
                self._find_wrong_on_hand,
            ),
            IntegrityCheck(
                "O1.reserved_equals_reservations",
                "The reserved units of a stock row are those of its live reservations.",
                lambda findings, _: self._scan_reserved(judge_reserved, findings),
            ),
            IntegrityCheck(
                "O1.reserved_within_stock",
                "No more units are reserved than are on hand or sold as backorder.",
                lambda findings, _: self._scan_reserved(judge_limits, findings),
            ),
            IntegrityCheck(
                "O8.reservations_end",
                "No reservation is held after its expiry.",
                self._find_overdue,
                Repair("Expire overdue reservations", self._reservation_expiry.run_once),
            ),
        ]

    async def _find_wrong_on_hand(self, findings: Findings, _: timedelta) -> None:
        async with self._snapshots.snapshot() as reads:
            await scan_pages(
                reads.list_on_hand_sums, lambda stock: stock.key, judge_on_hand, findings
            )

    async def _scan_reserved(
        self, judge: Callable[[ReservedSum], Iterable[OffendingRow]], findings: Findings
    ) -> None:
        async with self._snapshots.snapshot() as reads:
            await scan_pages(reads.list_reserved_sums, lambda stock: stock.key, judge, findings)

    async def _find_overdue(self, findings: Findings, grace: timedelta) -> None:
        before = self._clock() - grace
        async with self._snapshots.snapshot() as reads:
            await scan_pages(
                lambda after, limit: reads.list_overdue_reservations(before, after, limit),
                lambda reservation: reservation.key,
                judge_overdue,
                findings,
            )
