"""Creates the categories of the generated catalogue, and imports its products."""

import csv
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from typing import Any, Final

from markethall.inventory.catalogue.contract.categories import (
    Categories,
    CategoryTaken,
    CategoryTranslation,
    NewCategory,
)
from markethall.inventory.imports.contract import ImportFormat, Imports, NewImport
from markethall.local.demo.generate_products import as_ndjson_line, generate_products
from markethall.local.demo.vocabulary import CATEGORIES, CategoryTemplate
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import new_id

_ROWS_PER_CHUNK: Final = 200


@dataclass(frozen=True)
class GeneratedCatalogue:
    """An import of the first `products` generated products, without those in `known_skus`."""

    products: int
    known_skus: Collection[str]

    def command(self, sha256: str) -> NewImport:
        return NewImport(sha256=sha256, format=ImportFormat.NDJSON, with_stock=True)

    async def chunks(self) -> AsyncIterator[bytes]:
        lines = (as_ndjson_line(row) for row in self._new_products())
        while chunk := b"".join(islice(lines, _ROWS_PER_CHUNK)):
            yield chunk

    @property
    def is_complete(self) -> bool:
        """Tell whether all products exist already."""
        return next(self._new_products(), None) is None

    def _new_products(self) -> Iterator[dict[str, Any]]:
        rows = generate_products(self.products)
        return (row for row in rows if row["sku"] not in self.known_skus)


async def known_skus(imports: Imports, ctx: CallContext) -> set[str]:
    """Return the SKUs of all products, including archived ones."""
    known: set[str] = set()
    header: Sequence[str] | None = None
    # parsed in pieces, because a large export does not fit into memory
    async for piece in imports.export_products(ctx):
        rows = csv.DictReader(StringIO(piece.decode(), newline=""), header)
        known |= {row["sku"] for row in rows}
        header = rows.fieldnames
    return known


async def create_categories(categories: Categories, call: CallContext) -> None:
    """Create the category tree. Existing categories are not changed."""
    for position, (key, template) in enumerate(CATEGORIES.items()):
        command = _category(key, template, position)
        try:
            await categories.create(call, command, IdempotentCommand.without_key(new_id()))
        except CategoryTaken:
            continue


def _category(key: str, template: CategoryTemplate, position: int) -> NewCategory:
    names = {"de": template.german, "fr": template.french}
    return NewCategory(
        category=key,
        name=template.name,
        parent=template.parent,
        position=position,
        translations={language: CategoryTranslation(name=name) for language, name in names.items()},
    )
