"""The output of `markethall payments reconcile`: a table for people, or JSON for programs."""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol, TextIO

from markethall.payments.contract.reconciliation import (
    CurrencySums,
    DifferenceReason,
    DifferenceView,
    ReconciledEntry,
    ReconciliationSummary,
)
from markethall.shared.kernel.money import Money, format_major_units

MAX_SHOWN: Final = 100
_NONE: Final = "-"


class ReconciliationReport(Protocol):
    async def add(self, differences: Sequence[DifferenceView]) -> None: ...
    def finish(self, summary: ReconciliationSummary) -> None:
        """Print the rest of the report: the differences not printed yet, and the summary."""


class JsonReport:
    """Prints each difference when it is found, so that any number of them fits into memory."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._separator = '{"differences": [\n'

    async def add(self, differences: Sequence[DifferenceView]) -> None:
        for difference in differences:
            self._output.write(self._separator + difference.model_dump_json())
            self._separator = ",\n"

    def finish(self, summary: ReconciliationSummary) -> None:
        start = self._separator if self._separator != ",\n" else "\n"
        self._output.write(f'{start}],\n"summary": {summary.model_dump_json()}}}\n')


class TextReport:
    """Prints the first differences as a table, and the sums."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._shown: list[DifferenceView] = []

    async def add(self, differences: Sequence[DifferenceView]) -> None:
        self._shown += differences[: MAX_SHOWN - len(self._shown)]

    def finish(self, summary: ReconciliationSummary) -> None:
        for line in self._lines(summary):
            self._output.write(line + "\n")

    def _lines(self, summary: ReconciliationSummary) -> Iterator[str]:
        first_day, last_day = summary.starts_at.date(), summary.last_day
        days = f"{first_day}" if first_day == last_day else f"{first_day} to {last_day}"
        yield f"{summary.provider}, {days} (UTC)"
        yield ""
        if self._shown:
            yield from _table(_DIFFERENCE_HEADER, map(_difference_cells, self._shown), right=())
            if summary.differences > len(self._shown):
                yield f"... and {summary.differences - len(self._shown)} more; --json prints all"
            yield ""
        if summary.sums:
            yield from _table(_SUM_HEADER, map(_sum_cells, summary.sums), right=(1, 2, 3, 4))
            yield ""
        yield from _counts(summary)


_DIFFERENCE_HEADER: Final = ("difference", "ours", "theirs", "time (UTC)", "reference")
_SUM_HEADER: Final = ("sums", "ours", "theirs", "difference", "fees")


def _difference_cells(difference: DifferenceView) -> Sequence[str]:
    ours, theirs = difference.ours, difference.theirs
    entry = theirs or ours
    has_fee = difference.reason is DifferenceReason.FEE_DIFFERS
    return (
        difference.reason.replace("_", " "),
        _entry_text(ours, has_fee=has_fee),
        _entry_text(theirs, has_fee=has_fee),
        f"{entry.occurred_at:%Y-%m-%d %H:%M:%S}" if entry else _NONE,
        _reference_text(difference),
    )


def _reference_text(difference: DifferenceView) -> str:
    """Return the provider's reference or, without one, our operation id."""
    reference = difference.provider_reference or str(difference.operation_id or _NONE)
    # a file may have control characters, which a terminal would execute
    printable = "".join(one if one.isprintable() else "?" for one in reference)
    return f"{printable} (line {difference.line})" if difference.line else printable


def _entry_text(entry: ReconciledEntry | None, *, has_fee: bool) -> str:
    if entry is None:
        return _NONE
    fee = f", fee {_money_text(entry.fee)}" if entry.fee and has_fee else ""
    return f"{entry.kind} {_money_text(entry.amount)}{fee}"


def _sum_cells(sums: CurrencySums) -> Sequence[str]:
    amounts = (sums.ours, sums.theirs, sums.difference, sums.fees)
    return sums.ours.currency, *(_amount_text(amount) for amount in amounts)


def _counts(summary: ReconciliationSummary) -> Iterator[str]:
    reasons = [
        f"{count} {reason.replace('_', ' ')}"
        for reason, count in summary.differences_by_reason.items()
    ]
    detail = f" ({', '.join(reasons)})" if reasons else ""
    noun = "difference" if summary.differences == 1 else "differences"
    yield f"{summary.matched} matched, {summary.differences} {noun}{detail}"
    if summary.other_lines:
        yield f"{summary.other_lines} lines are no payments or refunds, such as payouts"
    if summary.edge_operations:
        yield (
            f"{summary.edge_operations} of our operations, close to the start or end of the period,"
            " are not in the file; the file of the day before or after may have them"
        )


def _money_text(money: Money) -> str:
    return f"{_amount_text(money)} {money.currency}"


def _amount_text(money: Money) -> str:
    sign = "-" if money.amount < 0 else ""
    return sign + format_major_units(abs(money.amount), money.currency)


def _table(
    header: Sequence[str], rows: Iterator[Sequence[str]], right: Sequence[int]
) -> Iterator[str]:
    """Align the columns: those whose index is in `right` to the right, the others to the left."""
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        aligned = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(aligned).rstrip()
