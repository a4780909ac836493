"""Find the categories and families that the rows of a batch name.

New ones are created, and families that rows describe are changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Self

from markethall.inventory.catalogue.contract.categories import CategoryAmbiguous
from markethall.inventory.catalogue.contract.families import SlugTaken
from markethall.inventory.catalogue.domain.categories import (
    Category,
    CategoryTree,
    label_keys,
    path_of_ancestors,
)
from markethall.inventory.catalogue.domain.families import (
    Family,
    FamilyNames,
    candidates_of,
    create_implicit_families,
)
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.text_keys import label_key
from markethall.inventory.imports.domain.file_records import RowError
from markethall.inventory.imports.domain.row_validation import FamilyRow, RowResult, ValidatedRow
from markethall.inventory.imports.ports import Store
from markethall.shared.kernel.ids import new_id

_MAX_PATHS_IN_MESSAGE: Final = 5


@dataclass(frozen=True)
class RowCategories:
    """The categories that the rows name.

    `keys` maps the text in a row to the key of its category. `ambiguous` maps a text that names
    several categories to the paths of at most five of them.
    """

    tree: CategoryTree
    keys: Mapping[str, str]
    ambiguous: Mapping[str, Sequence[str]]

    @classmethod
    async def load(cls, store: Store, rows: Iterable[RowResult], *, is_dry_run: bool) -> Self:
        """Find the categories and lock them against deletion.

        If some are new, also lock the tree, except in a dry run.
        """
        # in the order of the file, because the first spelling becomes the name of a new category
        texts = list(dict.fromkeys(text for row in rows if (text := _category_of(row)) is not None))
        tree, found = await _load_tree(store, texts)
        if tree.planned and not is_dry_run:
            # load again: another transaction may have created them before the tree was locked
            await store.lock_category_tree()
            tree, found = await _load_tree(store, texts)
        keys = {text: keys[0] for text, keys in found.items() if len(keys) == 1}
        ambiguous = {
            text: [await _path_of(store, key) for key in sorted(keys)[:_MAX_PATHS_IN_MESSAGE]]
            for text, keys in found.items()
            if len(keys) > 1
        }
        return cls(tree, keys, ambiguous)

    def resolve(self, row: RowResult) -> RowResult:
        """Replace the category of the row by its key. Return an error if it is ambiguous."""
        text = _category_of(row)
        if text is None or isinstance(row, tuple):
            return row
        if paths := self.ambiguous.get(text):
            choices = " or ".join(sorted(paths))
            message = f"{text[:80]!r} may be {choices}: give the path"
            return (RowError(*row.locate(("category",)), CategoryAmbiguous.code, message[:300]),)
        key = self.keys[text]
        if isinstance(row, FamilyRow):
            return replace(row, values={**row.values, "category": key})
        # most rows have the key already, and copying the product takes as long as reading a row
        return row if key == text else replace(row, product=replace(row.product, category=key))

    async def create(self, store: Store, keys: Iterable[str | None]) -> None:
        """Create the new categories among these, and their parents."""
        for node in self.tree.planned_with_parents(keys):
            await store.add_category(Category.create_implicit(new_id(), node))


async def _load_tree(
    store: Store, texts: Sequence[str]
) -> tuple[CategoryTree, Mapping[str, Sequence[str]]]:
    nodes = await store.list_category_nodes_for_share(label_keys(texts)) if texts else ()
    tree = CategoryTree(nodes)
    return tree, {text: tree.get_or_plan(text) for text in texts}


async def _path_of(store: Store, category: str) -> str:
    # a category in `tree.planned` has no ancestors in the store, because it is not stored yet; its
    # key is its path
    return path_of_ancestors(await store.get_ancestors(category)) or category


def _category_of(row: RowResult) -> str | None:
    if isinstance(row, FamilyRow):
        return row.category
    return row.product.category if isinstance(row, ValidatedRow) else None


@dataclass
class RowFamilies:
    """The families that the rows name.

    `labels` maps the text in a row to the label of its family. `families_by_sku` maps a SKU key to
    the label of the family of its product. `existing` has the stored families that rows describe,
    by label.
    """

    names: FamilyNames
    labels: Mapping[str, str]
    families_by_sku: Mapping[str, str]
    existing: Mapping[str, Family]
    # the fields of new families, by label
    new_values: dict[str, dict[str, Any]] = field(default_factory=dict)
    changed: dict[str, Family] = field(default_factory=dict)

    @classmethod
    async def load(cls, store: Store, rows: Sequence[RowResult], *, is_dry_run: bool) -> Self:
        """Find the families, and lock those that rows describe.

        If a family is new, or a row sets a slug, also lock the names of families, except in a dry
        run.
        """
        skus = sorted({key for row in rows for key in _sku_keys(row)})
        by_sku = await store.list_families_by_sku(skus) if skus else {}
        # in the order of the file, because the first spelling becomes the label of a new family
        texts = list(dict.fromkeys(text for row in rows if (text := _family_of(row, by_sku))))
        slugs = {slug for row in rows if (slug := _slug_of(row))}
        names, labels = await _load_names(store, texts, slugs)
        if (names.planned or slugs) and not is_dry_run:
            # load again, because another transaction may have created families before the lock
            await store.lock_family_names()
            names, labels = await _load_names(store, texts, slugs)
        described = {
            labels[text]
            for row in rows
            if isinstance(row, FamilyRow) and (text := _family_of(row, by_sku))
        }
        found = await store.get_families_for_update(described) if described else ()
        return cls(names, labels, by_sku, {family.label: family for family in found})

    def resolve(self, row: RowResult) -> RowResult:
        """Replace the name of the family, and the handle of a Shopify row, by the label."""
        text = _family_of(row, self.families_by_sku)
        if text is None or isinstance(row, tuple):
            return row
        label = self.labels[text]
        if isinstance(row, FamilyRow):
            return replace(row, label=label)
        # most rows have the label already, and copying the product takes as long as reading a row
        if label == row.product.family:
            return row
        product = replace(row.product, family=label)
        return replace(
            row, product=product, variant=row.variant and replace(row.variant, handle=label)
        )

    def check(self, row: FamilyRow) -> Sequence[RowError]:
        """Return an error if another family has or had the slug of the row."""
        slug = row.values.get("slug")
        if slug is None or self.names.claim_slug(slug, row.label):
            return ()
        return (RowError(*row.locate(("slug",)), SlugTaken.code, SlugTaken.title),)

    def apply(self, row: FamilyRow, now: datetime) -> tuple[Family, Sequence[str]] | None:
        """Set the fields of an existing family. Return its previous state and the changed fields.

        For a new family, store the fields in `new_values` and return None.
        """
        family = self.existing.get(row.label)
        if family is None:
            self.new_values.setdefault(row.label, {}).update(row.values)
            return None
        before = replace(family)
        changed = family.set_fields(row.values, now)
        if changed:
            self.changed[row.label] = family
        return before, changed

    @property
    def category_keys(self) -> Sequence[str | None]:
        """The categories of the new and changed families."""
        new = [values.get("category") for values in self.new_values.values()]
        return [*new, *(family.category for family in self.changed.values())]

    def new_labels(self, products: Iterable[Product]) -> Sequence[str]:
        """Return the labels of the families to create for these products and for rows."""
        return self.names.planned_labels({p.family for p in products} | self.new_values.keys())

    async def write(self, store: Store, products: Iterable[Product], now: datetime) -> None:
        """Create the new families of rows and of these products, and save the changed ones."""
        if labels := self.new_labels(products):
            slugs = [slug for values in self.new_values.values() if (slug := values.get("slug"))]
            taken = await store.list_taken_slugs(candidates_of(labels))
            families = create_implicit_families(labels, [*taken, *slugs], now, new_id)
            values = self.new_values
            await store.add_families([replace(f, **values.get(f.label, {})) for f in families])
        if self.changed:
            await store.save_families([self.changed[label] for label in sorted(self.changed)])


async def _load_names(
    store: Store, texts: Sequence[str], slugs: Iterable[str]
) -> tuple[FamilyNames, Mapping[str, str]]:
    keys = sorted({*map(label_key, texts), *slugs})
    names = FamilyNames(await store.list_family_names(keys) if keys else ())
    return names, {text: names.get_or_plan(text) for text in texts}


def _family_of(row: RowResult, families_by_sku: Mapping[str, str]) -> str | None:
    """Return the text that names the family of a row.

    A WooCommerce variation stays in the family of its existing product or of its siblings.
    """
    if isinstance(row, tuple):
        return None
    text = row.label if isinstance(row, FamilyRow) else row.product.family
    if text is None or row.woo is None:
        return text
    found = (families_by_sku.get(key) for key in _sku_keys(row))
    return next((family for family in found if family), text)


def _sku_keys(row: RowResult) -> Sequence[str]:
    """Return the keys of the SKUs whose products determine the family of a WooCommerce row."""
    if isinstance(row, tuple) or row.woo is None:
        return ()
    if isinstance(row, FamilyRow):
        return row.woo.sibling_sku_keys
    return row.lookup_sku_keys if row.product.family is not None else ()


def _slug_of(row: RowResult) -> str | None:
    return row.values.get("slug") if isinstance(row, FamilyRow) else None
