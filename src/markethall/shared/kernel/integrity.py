"""Integrity checks: rules that the stored data of a context satisfies at every moment.

A context lists its checks in its container, as `integrity_checks`. `markethall doctor` and
`GET /integrity` run them on the live data.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeVar

from markethall.shared.kernel.model import Dto

# the maximum number of rows that a result lists; its count includes the others
MAX_LISTED_ROWS: Final = 20
# number of rows that one statement reads; low, so that it stays far below the statement timeout
PAGE_SIZE: Final = 500
# A rule about several transactions, such as the payment of an order and its reservation, holds only
# after the background work that follows them. Rows that changed within this time are not judged.
DEFAULT_GRACE: Final = timedelta(minutes=2)

F = TypeVar("F")
K = TypeVar("K")


class CheckStatus(StrEnum):
    OK = "ok"
    VIOLATED = "violated"
    NOT_CHECKED = "not_checked"


class OffendingRow(Dto):
    """A row that breaks a rule: its table and key, and the problem."""

    row: str
    problem: str


class CheckResult(Dto):
    """The result of one check. `violations` counts all offending rows; `rows` lists the first ones.

    If the check has not read all rows, `reason` says why.
    """

    context: str
    check: str
    rule: str
    status: CheckStatus
    checked: int = 0
    violations: int = 0
    rows: tuple[OffendingRow, ...] = ()
    reason: str | None = None


class Findings:
    """Collects the offending rows of one check."""

    def __init__(self) -> None:
        self.checked = 0
        self.violations = 0
        self.rows: list[OffendingRow] = []

    def add(self, *rows: OffendingRow) -> None:
        self.violations += len(rows)
        self.rows += rows[: MAX_LISTED_ROWS - len(self.rows)]

    def count_checked(self, count: int) -> None:
        self.checked += count


@dataclass(frozen=True)
class Repair:
    """A safe and idempotent repair, which may run while the application serves requests."""

    # an imperative sentence without a period, such as "Expire overdue reservations"
    description: str
    run: Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class IntegrityCheck:
    """One rule, and the function that finds the rows that break it.

    `find` reads the data in pages and writes nothing. Its second argument is the grace period: rows
    that changed within this time are not judged by rules about several transactions. `find` raises
    Unavailable if a database or another context does not answer.
    """

    # the number of the invariant and a name, such as `O1.on_hand_equals_movements`
    check_id: str
    # the rule in one sentence, such as "No delivery of the inbox is stuck."
    rule: str
    find: Callable[[Findings, timedelta], Awaitable[None]]
    repair: Repair | None = None


async def scan_pages(
    list_page: Callable[[K | None, int], Awaitable[Sequence[F]]],
    key_of: Callable[[F], K],
    judge: Callable[[F], Iterable[OffendingRow]],
    findings: Findings,
) -> None:
    """Judge all rows, page by page.

    `list_page` gets the key of the last row of the page before, or None, and the page size.
    """
    after: K | None = None
    while True:
        page = await list_page(after, PAGE_SIZE)
        for fact in page:
            findings.add(*judge(fact))
        findings.count_checked(len(page))
        if len(page) < PAGE_SIZE:
            return
        after = key_of(page[-1])
