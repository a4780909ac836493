"""Commands for payments: compare with the report of a provider."""

import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from markethall.cli.console import err, fail
from markethall.cli.runtime import run_with_container
from markethall.shared.composition.settings import SettingsError

if TYPE_CHECKING:
    from markethall.cli.reconciliation_report import ReconciliationReport
    from markethall.container import ApplicationContainer
    from markethall.payments.contract.reconciliation import ReconciliationSummary

payments = typer.Typer(no_args_is_help=True, help="Payments and their providers.")

EXIT_DIFFERENCES: Final = 1
EXIT_UNAVAILABLE: Final = 3
_ONE_DAY: Final = timedelta(days=1)
_FIRST_DAY: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LAST_DAY: Final = datetime(2199, 12, 31, tzinfo=UTC)
_MAX_LINE_BYTES: Final = 1024 * 1024

Period = tuple[datetime, datetime]


@payments.callback()
def group() -> None:
    """Payments and their providers."""


@payments.command()
def reconcile(
    provider: Annotated[str, typer.Option(help="The name of the provider, such as stripe")],
    first_day: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help="First UTC day; default: yesterday"),
    ] = None,
    last_day: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="Last UTC day; default: the first"),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="A CSV file with the report; its days are compared if --from is not given",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document")] = False,
) -> None:
    """Compare our payments and refunds with the report of a provider. Change nothing.

    The exit code is 0 if both agree, 1 if there are differences, 2 for invalid input, and 3 if the
    provider does not give its report.
    """
    from markethall.cli.reconciliation_report import JsonReport, TextReport

    period = _period(first_day, last_day, has_file=file is not None)
    report: ReconciliationReport = JsonReport(sys.stdout) if as_json else TextReport(sys.stdout)

    async def run(container: "ApplicationContainer") -> "ReconciliationSummary":
        return await _compare(container, provider, period, file, report)

    summary = run_with_container(run)
    report.finish(summary)
    raise typer.Exit(EXIT_DIFFERENCES if summary.differences else 0)


async def _compare(
    container: "ApplicationContainer",
    provider: str,
    period: Period | None,
    file: Path | None,
    report: "ReconciliationReport",
) -> "ReconciliationSummary":
    """Run the comparison. Raises SettingsError for invalid input, Exit if there is no report."""
    from markethall.payments.container import PaymentsContainer
    from markethall.payments.contract.errors import (
        ReportFileInvalid,
        UnknownReportProvider,
        UnsupportedByProvider,
    )
    from markethall.shared.kernel.errors import Unavailable

    comparison = container.context("payments", PaymentsContainer).report_comparison()
    try:
        if file:
            lines = _read_lines(file)
            return await comparison.compare_file(provider, lines, period, report.add)
        start, end = period or _yesterday()
        return await comparison.compare_period(provider, start, end, report.add)
    except UnknownReportProvider as error:
        fail(f"--provider: {provider} is not one of {', '.join(error.details['known'])}")
    except UnsupportedByProvider:
        fail(f"--provider: {provider} gives no report; compare with a file by --file")
    except ReportFileInvalid as error:
        raise SettingsError([_error_line(**one) for one in error.details["errors"]]) from None
    except Unavailable as error:
        err.print(f"[red]unavailable[/] {error.details.get('dependency')} gave no answer")
        raise typer.Exit(EXIT_UNAVAILABLE) from None


def _error_line(line: int, column: str, message: str) -> str:
    return f"line {line}" + (f", {column}" if column else "") + f": {message}"


def _period(
    first_day: datetime | None, last_day: datetime | None, *, has_file: bool
) -> Period | None:
    """Return the compared period; None means all days of the file. Raises SettingsError."""
    if first_day is None:
        if last_day:
            fail("--to: needs --from")
        return None if has_file else _yesterday()
    first = first_day.replace(tzinfo=UTC)
    last = (last_day or first_day).replace(tzinfo=UTC)
    if last < first:
        fail("--to: is before --from")
    if first < _FIRST_DAY or last > _LAST_DAY:
        fail("--from: days must be between 2000-01-01 and 2199-12-31")
    return first, last + _ONE_DAY


def _yesterday() -> Period:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - _ONE_DAY, today


async def _read_lines(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as lines:
        while line := lines.readline(_MAX_LINE_BYTES):
            yield line
