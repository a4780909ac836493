from typing import TYPE_CHECKING, Annotated, Final

import typer

from markethall.cli.console import out
from markethall.cli.runtime import run_with_container
from markethall.shared.composition.settings import SettingsError

if TYPE_CHECKING:
    from markethall.container import ApplicationContainer
    from markethall.payments.contract.ledger import LedgerFinding, LedgerReport

ledger = typer.Typer(no_args_is_help=True, help="The ledger of payments.")

EXIT_DIFFERS: Final = 1


@ledger.callback()
def _group() -> None:
    """Make `verify` a subcommand. Without a callback, Typer omits the name of a single command."""


@ledger.command()
def verify(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build the ledger again from the operations; compare")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON")] = False,
) -> None:
    """Check the sums and the hash chains of the ledger: exit code 1 if a row is wrong."""

    async def check(container: "ApplicationContainer") -> "LedgerReport":
        return await _verify(container, rebuild=rebuild)

    report = run_with_container(check)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _print(report, rebuild=rebuild)
    raise typer.Exit(0 if report.intact else EXIT_DIFFERS)


async def _verify(container: "ApplicationContainer", *, rebuild: bool) -> "LedgerReport":
    from markethall.payments.container import PaymentsContainer
    from markethall.shared.kernel.call_context import system_context

    if "payments" not in container.contexts:
        raise SettingsError(["MARKETHALL_CONTEXTS: this needs payments, which is not served"])
    payments = container.context("payments", PaymentsContainer)
    return await payments.ledger().verify(system_context("payments.verify"), rebuild=rebuild)


def _print(report: "LedgerReport", *, rebuild: bool) -> None:
    checks = "sums, hash chains, amounts of payments" + (", operations" if rebuild else "")
    out.print(f"{report.posting_count} postings checked: {checks}.")
    if report.intact:
        out.print("[green]The ledger is intact.[/]")
        return
    out.print(f"[red]{report.finding_count} findings[/], the first of each chain first:")
    for finding in report.findings:
        out.print(f"  {_describe(finding)}", markup=False)
    if report.finding_count > len(report.findings):
        out.print(f"  and {report.finding_count - len(report.findings)} more")


def _describe(finding: "LedgerFinding") -> str:
    place = "" if finding.chain is None else f" chain {finding.chain} sequence {finding.sequence}"
    ids = [
        f"{name} {value}"
        for name, value in (
            ("posting", finding.posting_id),
            ("payment", finding.payment_id),
            ("operation", finding.operation_id),
        )
        if value
    ]
    return f"{finding.problem.value}{place}{': ' if ids else ''}{', '.join(ids)}"
