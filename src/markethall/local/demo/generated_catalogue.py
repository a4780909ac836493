"""A market of any size into the shop: its category tree, and its products by way of an import."""

import csv
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from typing import Final

from markethall.demo.market import as_line, market
from markethall.demo.words import CATEGORIES, Branch
from markethall.inventory.contract import (
    Categories,
    CategoryTaken,
    CategoryTranslation,
    ImportFormat,
    Imports,
    NewCategory,
    NewImport,
)
from markethall.shared.call import Call
from markethall.shared.idempotency import Attempt
from markethall.shared.ids import new_id

_AT_ONCE: Final = 200


@dataclass(frozen=True)
class Market:
    """The first so many products of the market, without those that are `known` by their sku: what
    became of them in the shop stays.
    """

    products: int
    known: Collection[str]

    def command(self, sha256: str) -> NewImport:
        return NewImport(sha256=sha256, format=ImportFormat.NDJSON)

    async def chunks(self) -> AsyncIterator[bytes]:
        lines = (as_line(row) for row in market(self.products) if row["sku"] not in self.known)
        while some := b"".join(islice(lines, _AT_ONCE)):
            yield some

    @property
    def is_there(self) -> bool:
        return all(row["sku"] in self.known for row in market(self.products))


async def known_skus(imports: Imports, call: Call) -> set[str]:
    """Of all products, the archived ones too."""
    known: set[str] = set()
    header: Sequence[str] | None = None
    # piece by piece: the whole of a large shop is no small thing
    async for piece in imports.export(call):
        rows = csv.DictReader(StringIO(piece.decode(), newline=""), header)
        known |= {row["sku"] for row in rows}
        header = rows.fieldnames
    return known


async def plant(categories: Categories, call: Call) -> None:
    """The category tree; a category that is there already stays as it is."""
    for position, (key, branch) in enumerate(CATEGORIES.items()):
        command = _category(key, branch, position)
        try:
            await categories.create(call, command, Attempt.keyless(new_id()))
        except CategoryTaken:
            continue


def _category(key: str, branch: Branch, position: int) -> NewCategory:
    words = {"de": branch.german, "fr": branch.french}
    return NewCategory(
        category=key,
        name=branch.name,
        parent=branch.parent,
        position=position,
        translations={language: CategoryTranslation(name=name) for language, name in words.items()},
    )
