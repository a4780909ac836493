"""Commands that import and export products, or add demo data."""

import sys
from contextlib import nullcontext
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
        int, typer.Option(help="Import this number of generated products instead", min=0)
    ] = 0,
    storefront: Annotated[
        bool,
        typer.Option("--storefront", help="Serve the example storefront instead; adds no products"),
    ] = False,
    port: Annotated[
        int,
        typer.Option(help="Port of the storefront on loopback; 0: a free one", min=0, max=65535),
    ] = 3000,
    api: Annotated[
        str, typer.Option(help="Address of the API for the storefront")
    ] = "http://127.0.0.1:8000",
) -> None:
    """Create a small demo shop: products with stock, shipping methods, tax rates and vouchers.

    A second run adds nothing.
    """
    if storefront:
        from markethall.cli.storefront import serve_storefront

        serve_storefront(port, api)
        return
    if products:
        _import_generated(products)
        return
    _fill_shop()


@cli.command("import")
def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV in the format of Markethall, Shopify or WooCommerce, or NDJSON",
            exists=True,
            dir_okay=False,
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate every row without changing anything")
    ] = False,
    with_stock: Annotated[
        bool, typer.Option("--with-stock", help="Also set the stock of existing products")
    ] = False,
    archive_missing: Annotated[
        bool,
        typer.Option(
            "--archive-missing",
            help="Archive products that the file does not have, of families that it has",
        ),
    ] = False,
    fetch_images: Annotated[
        bool,
        typer.Option(
            "--fetch-images", help="Fetch images that rows name by URL, and store them as media"
        ),
    ] = False,
    currency: Annotated[str, typer.Option(help="Currency of prices without one")] = "EUR",
) -> None:
    """Import products from a file. Valid rows are imported; the exit code is 1 if a row failed."""
    from markethall.cli import import_command
    from markethall.inventory.container import InventoryContainer
    from markethall.inventory.settings import InventorySettings
    from markethall.shared.kernel.call_context import system_context

    max_bytes = read_one(InventorySettings, {}).max_import_bytes
    import_source = import_command.ImportFile(
        file,
        max_bytes,
        currency,
        dry_run=dry_run,
        with_stock=with_stock,
        archive_missing=archive_missing,
        fetch_images=fetch_images,
    )

    async def run(container: "ApplicationContainer") -> import_command.ImportResult:
        inventory = container.context("inventory", InventoryContainer)
        with import_command.ProgressBar(err) as progress_bar:
            return await import_command.run_import(
                import_source,
                inventory.imports(),
                inventory.import_worker().process_next,
                system_context("import"),
                progress_bar.update,
            )

    _print_result_and_exit(run_with_container(run))


@cli.command("export")
def export_file(
    file: Annotated[
        Path | None, typer.Argument(help="CSV file to write; standard output without one")
    ] = None,
    families: Annotated[
        bool, typer.Option("--families", help="Export the families instead of the products")
    ] = False,
) -> None:
    """Export all products, or all families, as CSV, which can be imported again."""
    from markethall.inventory.container import InventoryContainer
    from markethall.shared.kernel.call_context import system_context

    async def run(container: "ApplicationContainer") -> None:
        inventory = container.context("inventory", InventoryContainer)
        imports, ctx = inventory.imports(), system_context("export")
        chunks = imports.export_families(ctx) if families else imports.export_products(ctx)
        with file.open("wb") if file else nullcontext(sys.stdout.buffer) as output:
            async for chunk in chunks:
                output.write(chunk)

    run_with_container(run)


def _fill_shop() -> None:
    from markethall.inventory.container import InventoryContainer
    from markethall.local.demo import configuration, shop
    from markethall.orders.container import OrdersContainer
    from markethall.shared.kernel.call_context import system_context

    async def fill(container: "ApplicationContainer") -> list[str]:
        ctx = system_context("demo")
        inventory = container.context("inventory", InventoryContainer)
        products = await shop.fill(inventory.catalogue(), inventory.stockroom(), ctx)
        lines = [f"{products} products added."]
        # while a service is extracted, a process may serve inventory without orders
        if "orders" in container.contexts:
            orders = container.context("orders", OrdersContainer)
            services = configuration.ConfigurationServices(
                orders.shop(), orders.shipping_methods(), orders.tax_rates(), orders.promotions()
            )
            new = await configuration.fill_configuration(services, ctx)
            counts = f"{new.shipping_methods} shipping methods, {new.tax_rates} tax rates"
            lines += [f"{counts} and {new.vouchers} vouchers added.", configuration.VOUCHER_LINE]
        return lines

    for line in run_with_container(fill):
        out.print(line, markup=False)


def _import_generated(products: int) -> None:
    from markethall.cli import import_command
    from markethall.inventory.container import InventoryContainer
    from markethall.local.demo import generated_catalogue as catalogue
    from markethall.shared.kernel.call_context import system_context

    async def fill(container: "ApplicationContainer") -> import_command.ImportResult | None:
        inventory = container.context("inventory", InventoryContainer)
        ctx, imports = system_context("demo"), inventory.imports()
        known = await catalogue.known_skus(imports, ctx)
        generated = catalogue.GeneratedCatalogue(products, known)
        if generated.is_complete:
            return None
        await catalogue.create_categories(inventory.categories(), ctx)
        with import_command.ProgressBar(err) as progress_bar:
            process = inventory.import_worker().process_next
            return await import_command.run_import(
                generated, imports, process, ctx, progress_bar.update
            )

    result = run_with_container(fill)
    if result and not result.is_successful:
        _print_result_and_exit(result)
    out.print(f"{result.final_state.rows.created if result else 0} products added.")


def _print_result_and_exit(result: "ImportResult") -> None:
    for line in result.to_lines():
        out.print(line, markup=False)
    raise typer.Exit(0 if result.is_successful else 1)
