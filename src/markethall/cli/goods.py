"""Bringing goods into the hall: made up, or from a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from markethall.cli.console import err, out
from markethall.cli.hall import in_hall
from markethall.settings import read_settings

if TYPE_CHECKING:
    from markethall.loading import Loaded

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
    from markethall.local import demo as catalogue  # noqa: PLC0415 - large; others need not wait
    from markethall.shared.call import system_call  # noqa: PLC0415 - large; others need not wait

    async def fill(container: Any) -> int:
        return await catalogue.fill(
            container.catalogue(), container.stockroom(), system_call("demo")
        )

    out.print(f"{in_hall(fill)} products added.")


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
    from markethall import loading  # noqa: PLC0415 - large; others need not wait
    from markethall.shared.call import system_call  # noqa: PLC0415 - large; others need not wait

    load = loading.Load(file, read_settings().import_limit, currency, dry_run=dry_run)

    async def bring(container: Any) -> loading.Loaded:
        importer = container.inventory_context.importer()
        with loading.Meter(err) as meter:
            return await loading.bring(
                load, container.imports(), importer.work, system_call("import"), meter.show
            )

    _report(in_hall(bring))


def _import_generated(products: int) -> None:
    from markethall import loading  # noqa: PLC0415 - large; others need not wait
    from markethall.local import demo as catalogue  # noqa: PLC0415 - large; others need not wait
    from markethall.shared.call import system_call  # noqa: PLC0415 - large; others need not wait

    async def fill(container: Any) -> loading.Loaded | None:
        call, imports = system_call("demo"), container.imports()
        known = await catalogue.known_skus(imports, call)
        generated = catalogue.GeneratedCatalogue(products, known)
        if generated.is_complete:
            return None
        await catalogue.create_categories(container.categories(), call)
        with loading.Meter(err) as meter:
            work = container.inventory_context.importer().work
            return await loading.bring(generated, imports, work, call, meter.show)

    loaded = in_hall(fill)
    if loaded and not loaded.is_good:
        _report(loaded)
    out.print(f"{loaded.done.rows.created if loaded else 0} products added.")


def _report(loaded: "Loaded") -> None:
    for line in loaded.lines():
        out.print(line, markup=False)
    raise typer.Exit(0 if loaded.is_good else 1)
