"""Match the rows of one Shopify handle with the products of its family.

First a row matches the product with the same options. But a file may rename an option, or give a
SKU to a variant that had none. So the other rows are matched by SKU, then by the values of the
options without their names, and last by these values without letter case.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final
from uuid import UUID

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.text_keys import label_key, sku_key, spelling_key
from markethall.inventory.imports.domain.row_validation import ValidatedRow

# The two functions of a rule in _RULES: a row matches the product with the same key. The key is
# None if the rule does not apply to the row or product.
RowKey = Callable[[ValidatedRow], Hashable | None]
ProductKey = Callable[[Product], Hashable | None]


def options_key(options: Mapping[str, str]) -> Hashable:
    """Return a key of the options. The case of names is ignored, the case of values is not."""
    return frozenset((label_key(name), spelling_key(value)) for name, value in options.items())


def match_variants(
    rows: Sequence[ValidatedRow], products: Sequence[Product]
) -> Mapping[int, Product]:
    """Map the line number of each row to its product. Leave out new and ambiguous rows."""
    matched: dict[int, Product] = {}
    claims: dict[UUID, Hashable] = {}
    for row_key, product_key in _RULES:
        free = _unique_by_key(
            [product for product in products if product.product_id not in claims], product_key
        )
        for row in rows:
            key = row_key(row) if row.line not in matched else None
            product = free.get(key) if key is not None else None
            # two different variants of the file must not match the same product
            if product and claims.setdefault(product.product_id, _identity(row)) == _identity(row):
                matched[row.line] = product
    if len(products) == 1:
        matched |= {row.line: products[0] for row in rows if names_no_variant(row)}
    return matched


def names_no_variant(row: ValidatedRow) -> bool:
    """Tell whether the row has only a handle.

    Such a row matches the product of the family if the family has only one product.
    """
    return row.variant is not None and row.variant.options is None and not row.variant.has_sku


def is_ambiguous(row: ValidatedRow, products: Sequence[Product]) -> bool:
    """Tell whether a row without a match may belong to one of several products."""
    if row.variant is None or row.variant.has_sku:
        return False
    key = _row_options(row)
    return bool(products) and (
        key is None or any(options_key(product.options) == key for product in products)
    )


def _unique_by_key(
    products: Sequence[Product], product_key: ProductKey
) -> Mapping[Hashable, Product]:
    """Return the products whose key no other product has."""
    by_key: dict[Hashable, list[Product]] = {}
    for product in products:
        by_key.setdefault(product_key(product), []).append(product)
    return {key: found[0] for key, found in by_key.items() if len(found) == 1}


def _identity(row: ValidatedRow) -> Hashable:
    return row.sku_key if _row_options(row) is None else _row_options(row)


def _row_options(row: ValidatedRow) -> Hashable | None:
    has_options = row.variant is not None and row.variant.options is not None
    return options_key(row.product.options) if has_options else None


def _row_sku(row: ValidatedRow) -> Hashable | None:
    return row.sku_key if row.variant and row.variant.has_sku else None


def _row_values(row: ValidatedRow) -> Hashable | None:
    return _option_values(row.product)


def _row_folded_values(row: ValidatedRow) -> Hashable | None:
    return _folded_values(row.product)


def _option_values(product: Product) -> Hashable | None:
    return tuple(sorted(map(spelling_key, product.options.values()))) or None


def _folded_values(product: Product) -> Hashable | None:
    return tuple(sorted(map(label_key, product.options.values()))) or None


_RULES: Final[Sequence[tuple[RowKey, ProductKey]]] = (
    (_row_options, lambda product: options_key(product.options)),
    (_row_sku, lambda product: sku_key(product.sku)),
    (_row_values, _option_values),
    (_row_folded_values, _folded_values),
)
