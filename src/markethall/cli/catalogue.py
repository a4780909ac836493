"""Bringing goods into the hall: made up, or from a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from markethall.cli.console import err, out
from markethall.cli.runtime import run_with_container
from markethall.shared.composition.settings import read_one

if TYPE_CHECKING:
    from markethall.cli.import_command import ImportResult
    from markethall.container import ApplicationContainer

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
    from markethall.inventory.container import InventoryContainer
    from markethall.local import demo as catalogue
    from markethall.shared.kernel.call_context import system_context

    async def fill(container: "ApplicationContainer") -> int:
        inventory = container.context("inventory", InventoryContainer)
        return await catalogue.fill(
            inventory.catalogue, inventory.stockroom, system_context("demo")
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
    from markethall.inventory.container import InventoryContainer
    from markethall.inventory.settings import InventorySettings
    from markethall.shared.kernel.call_context import system_context

    max_bytes = read_one(InventorySettings, {}).max_import_bytes
    import_source = import_command.ImportFile(file, max_bytes, currency, dry_run=dry_run)

    async def run(container: "ApplicationContainer") -> import_command.ImportResult:
        inventory = container.context("inventory", InventoryContainer)
        with import_command.ProgressBar(err) as progress_bar:
            return await import_command.run_import(
                import_source,
                inventory.imports,
                inventory.import_worker.process_next,
                system_context("import"),
                progress_bar.update,
            )

    _print_result_and_exit(run_with_container(run))


def _import_generated(products: int) -> None:
    from markethall.cli import import_command
    from markethall.inventory.container import InventoryContainer
    from markethall.local import demo as catalogue
    from markethall.shared.kernel.call_context import system_context

    async def fill(container: "ApplicationContainer") -> import_command.ImportResult | None:
        inventory = container.context("inventory", InventoryContainer)
        call, imports = system_context("demo"), inventory.imports
        known = await catalogue.known_skus(imports, call)
        generated = catalogue.GeneratedCatalogue(products, known)
        if generated.is_complete:
            return None
        await catalogue.create_categories(inventory.categories, call)
        with import_command.ProgressBar(err) as meter:
            work = inventory.import_worker.process_next
            return await import_command.run_import(generated, imports, work, call, meter.update)

    loaded = run_with_container(fill)
    if loaded and not loaded.is_successful:
        _print_result_and_exit(loaded)
    out.print(f"{loaded.final_state.rows.created if loaded else 0} products added.")


def _print_result_and_exit(result: "ImportResult") -> None:
    for line in result.to_lines():
        out.print(line, markup=False)
    raise typer.Exit(0 if result.is_successful else 1)
