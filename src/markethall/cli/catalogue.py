"""Bringing goods into the hall: made up, or from a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from markethall.cli.console import err, out
from markethall.cli.runtime import run_with_container
from markethall.settings import read_settings

if TYPE_CHECKING:
    from markethall.cli.import_command import ImportResult

cli = typer.Typer()


@cli.command()
def demo(
    products: Annotated[
        int, typer.Option(help="Import so many generated products instead", min=0)
    ] = 0,
) -> None:
    """Fill the shop with a small catalogue and stock. Run twice, it adds nothing."""
    if products:
        _import_generated(products)
        return
    from markethall.local import demo as catalogue
    from markethall.shared.kernel.call_context import system_context

    async def fill(container: Any) -> int:
        return await catalogue.fill(
            container.catalogue(), container.stockroom(), system_context("demo")
        )

    out.print(f"{run_with_container(fill)} products added.")


@cli.command("import")
def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV (ours, or as Shopify exports it), or NDJSON", exists=True, dir_okay=False
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at every row, and change nothing")
    ] = False,
    currency: Annotated[str, typer.Option(help="Of prices that name none")] = "EUR",
) -> None:
    """Bring products from a file into the shop. A bad row stops no other."""
    from markethall.cli import import_command
    from markethall.shared.kernel.call_context import system_context

    import_source = import_command.ImportFile(
        file, read_settings().max_import_bytes, currency, dry_run=dry_run
    )

    async def run(container: Any) -> import_command.ImportResult:
        importer = container.inventory_context.import_worker()
        with import_command.ProgressBar(err) as progress_bar:
            return await import_command.run_import(
                import_source,
                container.imports(),
                importer.process_next,
                system_context("import"),
                progress_bar.update,
            )

    _print_result_and_exit(run_with_container(run))


def _import_generated(products: int) -> None:
    from markethall.cli import import_command
    from markethall.local import demo as catalogue
    from markethall.shared.kernel.call_context import system_context

    async def fill(container: Any) -> import_command.ImportResult | None:
        call, imports = system_context("demo"), container.imports()
        known = await catalogue.known_skus(imports, call)
        generated = catalogue.GeneratedCatalogue(products, known)
        if generated.is_complete:
            return None
        await catalogue.create_categories(container.categories(), call)
        with import_command.ProgressBar(err) as meter:
            work = container.inventory_context.import_worker().process_next
            return await import_command.run_import(generated, imports, work, call, meter.update)

    loaded = run_with_container(fill)
    if loaded and not loaded.is_successful:
        _print_result_and_exit(loaded)
    out.print(f"{loaded.final_state.rows.created if loaded else 0} products added.")


def _print_result_and_exit(result: "ImportResult") -> None:
    for line in result.to_lines():
        out.print(line, markup=False)
    raise typer.Exit(0 if result.is_successful else 1)
