"""The command that checks the integrity of the live data, and makes the repairs that are safe."""

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import structlog
import typer

from markethall.cli import runtime
from markethall.cli.console import out, print_errors, print_note
from markethall.shared.kernel.integrity import DEFAULT_GRACE, CheckResult, CheckStatus

if TYPE_CHECKING:
    from rich.table import Table

    from markethall.container import ApplicationContainer
    from markethall.operations.integrity import IntegrityReport, IntegrityRunner, PlannedRepair

cli = typer.Typer()

EXIT_VIOLATED: Final = 1
EXIT_NOT_CHECKED: Final = 2
_STYLES: Final = {
    CheckStatus.OK: "green",
    CheckStatus.VIOLATED: "bold red",
    CheckStatus.NOT_CHECKED: "yellow",
}


@cli.command()
def doctor(
    context: Annotated[
        list[str] | None, typer.Option(help="Only these contexts; default: all served")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what is safe to repair, then check again")
    ] = False,
    grace: Annotated[
        int,
        typer.Option(help="Seconds within which background work may be unfinished", min=0),
    ] = int(DEFAULT_GRACE.total_seconds()),
) -> None:
    """Check the integrity of the data: exit code 1 for violations, 2 if a check could not run."""
    # standard output has only the report, because a script may read it
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    for name in context or ():
        runtime.check_context(name)

    async def check(container: "ApplicationContainer") -> "IntegrityReport":
        from markethall.operations.integrity import IntegrityRunner

        runner = IntegrityRunner(container, context or (), grace=timedelta(seconds=grace))
        report = await runner.run()
        if not repair:
            return report
        return await _repair(runner, report)

    try:
        report = runtime.run_with_container(check, migrates=False)
    except (OSError, RuntimeError) as error:
        # for example, the embedded Postgres does not start
        print_errors([str(error)])
        raise typer.Exit(EXIT_NOT_CHECKED) from None
    _print(report, as_json=as_json)
    raise typer.Exit(_exit_code(report))


async def _repair(runner: "IntegrityRunner", report: "IntegrityReport") -> "IntegrityReport":
    """Print the planned repairs with their rows, run them, and check everything again."""
    planned = runner.plan_repairs(report)
    for one in planned:
        print_note(f"{one.description} ({one.context}, {one.before.violations} rows):")
        for line in _row_lines(one.before):
            print_note(line)
    for one in planned:
        _print_repaired(one, await runner.repair(one))
    if not planned:
        print_note("There is nothing that --repair can repair.")
    return await runner.run()


def _print_repaired(planned: "PlannedRepair", after: CheckResult) -> None:
    print_note(
        f"{planned.description} ({planned.context}):"
        f" {planned.before.violations} rows before, {after.violations} after"
    )
    if after.reason:
        print_note(f"  {after.reason}")


def _exit_code(report: "IntegrityReport") -> int:
    return {"ok": 0, "violated": EXIT_VIOLATED, "incomplete": EXIT_NOT_CHECKED}[report.status]


def _print(report: "IntegrityReport", *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.model_dump(mode="json"), indent=2))
        return
    out.print(_table(report.checks))
    for result in report.checks:
        if result.violations:
            out.print(f"\n[bold]{result.check}[/] ({result.context}) {result.rule}")
            for line in _row_lines(result):
                out.print(line, markup=False)
    _print_not_checked(report)
    out.print(_verdict(report))


def _table(results: Sequence[CheckResult]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("context", "check", "status"):
        table.add_column(title, no_wrap=True)
    for title in ("checked", "wrong"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in results:
        status = f"[{_STYLES[result.status]}]{result.status.replace('_', ' ')}[/]"
        counts = (f"{result.checked:,}", f"{result.violations:,}")
        table.add_row(result.context, result.check, status, *counts)
    return table


def _row_lines(result: CheckResult) -> list[str]:
    lines = [f"  {row.row}: {row.problem}" for row in result.rows]
    if result.violations > len(result.rows):
        lines.append(f"  … and {result.violations - len(result.rows):,} more")
    return lines


def _print_not_checked(report: "IntegrityReport") -> None:
    reasons = [
        f"{result.check} ({result.context}): {result.reason}"
        for result in report.checks
        if result.reason
    ]
    reasons += [
        f"{context}: not served here, run this command with the settings of its process"
        for context in report.contexts_not_served
    ]
    if reasons:
        out.print("\n[bold]Not checked[/]")
        for reason in reasons:
            out.print(f"  {reason}", markup=False)


def _verdict(report: "IntegrityReport") -> str:
    violations = sum(result.violations for result in report.checks)
    return {
        "ok": "\n[green]No violation.[/]",
        "violated": f"\n[bold red]Violations: {violations:,}[/]",
        "incomplete": "\n[yellow]No violation found, but not everything was checked.[/]",
    }[report.status]
