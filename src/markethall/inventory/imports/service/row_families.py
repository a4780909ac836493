"""Find the families that the rows of a batch name, and create the new ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from markethall.inventory.catalogue.domain.family_names import (
    FamilyNames,
    candidates_of,
    create_implicit_families,
)
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.text_keys import label_key
from markethall.inventory.imports.domain.row_validation import RowResult, ValidatedRow, Variant
from markethall.inventory.imports.ports import Store
from markethall.shared.kernel.ids import new_id


@dataclass(frozen=True)
class RowFamilies:
    """The families that the rows name. `labels` maps the text in a row to the label."""

    names: FamilyNames
    labels: Mapping[str, str]

    @classmethod
    async def load(cls, store: Store, rows: Iterable[RowResult], *, is_dry_run: bool) -> Self:
        """Find the families. If some are new, lock the names of families, except in a dry run."""
        # in the order of the file, because the first spelling becomes the label of a new family
        texts = list(dict.fromkeys(text for row in rows if (text := _family_of(row)) is not None))
        names, labels = await _load_names(store, texts)
        if names.planned and not is_dry_run:
            # load again: another transaction may have created them before the names were locked
            await store.lock_family_names()
            names, labels = await _load_names(store, texts)
        return cls(names, labels)

    def resolve(self, row: RowResult) -> RowResult:
        """Replace the family of the row by its label, and the handle of a Shopify row too."""
        text = _family_of(row)
        if text is None or not isinstance(row, ValidatedRow):
            return row
        label = self.labels[text]
        # most rows have the label already, and copying the product takes as long as reading a row
        if label == text:
            return row
        product = replace(row.product, family=label)
        return replace(row, product=product, variant=_with_handle(row.variant, label))

    async def create_for(self, store: Store, products: Iterable[Product], now: datetime) -> None:
        """Create the new families of these products."""
        labels = self.names.planned_labels({product.family for product in products})
        if labels:
            taken = await store.list_taken_slugs(candidates_of(labels))
            families = create_implicit_families(labels, taken, now, new_id)
            await store.add_implicit_families(families)


async def _load_names(store: Store, texts: Sequence[str]) -> tuple[FamilyNames, Mapping[str, str]]:
    keys = sorted(set(map(label_key, texts)))
    names = FamilyNames(await store.list_family_names(keys) if texts else ())
    return names, {text: names.get_or_plan(text) for text in texts}


def _with_handle(variant: Variant | None, handle: str) -> Variant | None:
    return None if variant is None else replace(variant, handle=handle)


def _family_of(row: RowResult) -> str | None:
    return row.product.family if isinstance(row, ValidatedRow) else None
