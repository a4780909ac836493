"""Find the product of each row of a batch, and rows that claim the SKU of another product."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.text_keys import label_key, sku_key, spelling_key
from markethall.inventory.imports.domain.file_records import RowError
from markethall.inventory.imports.domain.row_validation import ValidatedRow, describe_product

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
            if product and claims.setdefault(product.product_id, _variant_key(row)) == _variant_key(
                row
            ):
                matched[row.line] = product
    if len(products) == 1:
        # a row that has only a handle matches the only product of the family
        matched |= {
            row.line: products[0]
            for row in rows
            if row.variant and row.variant.options is None and not row.variant.has_sku
        }
    return matched


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


def _variant_key(row: ValidatedRow) -> Hashable:
    return row.sku_key if _row_options(row) is None else _row_options(row)


def _row_options(row: ValidatedRow) -> Hashable | None:
    has_options = row.variant is not None and row.variant.options is not None
    return options_key(row.product.options) if has_options else None


def _row_sku(row: ValidatedRow) -> Hashable | None:
    return row.sku_key if row.variant and row.variant.has_sku else None


def _option_values(product: Product) -> Hashable | None:
    return tuple(sorted(map(spelling_key, product.options.values()))) or None


def _folded_values(product: Product) -> Hashable | None:
    return tuple(sorted(map(label_key, product.options.values()))) or None


_RULES: Final[Sequence[tuple[RowKey, ProductKey]]] = (
    (_row_options, lambda product: options_key(product.options)),
    (_row_sku, lambda product: sku_key(product.sku)),
    (lambda row: _option_values(row.product), _option_values),
    (lambda row: _folded_values(row.product), _folded_values),
)


class ProductLookup:
    """The existing products, and the products that earlier rows of the batch create.

    In the native formats, a row belongs to the product with the row's SKU. In a WooCommerce file,
    if no product has this SKU, the row belongs to the product with the SKU that an earlier import
    derived because the row had no SKU then. In a Shopify file, a row belongs to the product with
    the row's handle and options. If there is none, the row belongs to the product with its SKU, but
    only if this product has no family. The row then sets the family of this product.
    """

    def __init__(self, rows: Sequence[ValidatedRow], products: Iterable[Product]) -> None:
        self._by_sku = {sku_key(product.sku): product for product in products}
        self._by_family = _group_by_family(products)
        self._matched = _match_by_handle(rows, self._by_family)
        # these two are filled only from rows of Shopify files
        self._by_identity: dict[Hashable, Product] = {}
        self._line_by_product_id: dict[object, int] = {}

    def find(self, row: ValidatedRow) -> Product | None:
        if row.variant is None:
            return self._by_sku.get(row.sku_key) or self._find_by_other_sku(row)
        known = self._by_identity.get(_identity(row)) or self._matched.get(row.line)
        return known or self._find_without_family(row)

    def _find_by_other_sku(self, row: ValidatedRow) -> Product | None:
        keys = row.woo.other_sku_keys if row.woo else ()
        return next((product for key in keys if (product := self._by_sku.get(key))), None)

    def _find_without_family(self, row: ValidatedRow) -> Product | None:
        owner = self._by_sku.get(row.sku_key) if row.variant and row.variant.has_sku else None
        return owner if owner and owner.family is None else None

    def add(self, row: ValidatedRow, product: Product) -> None:
        """Record the product of the row.

        If the row changes the SKU of the product, the old SKU still belongs to the product, so a
        later row of the batch cannot give the old SKU to another product.
        """
        self._by_sku.setdefault(sku_key(product.sku), product)
        if row.variant is not None:
            self._by_identity[_identity(row)] = product
            self._line_by_product_id.setdefault(product.product_id, row.line)

    def find_clash(self, row: ValidatedRow, product: Product | None) -> RowError | None:
        """Return an error if the row's SKU belongs to another product than `product`.

        Also return an error if the row matches several products.
        """
        if row.variant is None:
            return None
        if product is None and is_ambiguous(row, self._by_family.get(row.variant.handle, ())):
            message = "may be several products: give the SKU, or the options"
            return RowError(*row.locate(("sku",)), "ambiguous", message)
        owner = self._by_sku.get(row.sku_key)
        is_claimed = row.variant.has_sku or product is None
        if owner is None or owner is product or not is_claimed:
            return None
        return RowError(*row.locate(("sku",)), "inventory.sku_taken", self._clash(row, owner))

    def _clash(self, row: ValidatedRow, owner: Product) -> str:
        line = self._line_by_product_id.get(owner.product_id)
        place = f" in line {line}" if line else ""
        message = (
            f"{row.product.sku} of {row.description} is the SKU of {describe_product(owner)}{place}"
        )
        return message[:300]


def _identity(row: ValidatedRow) -> Hashable:
    """Return the handle and options of a Shopify row. Without options, return handle and SKU."""
    variant = row.variant
    if variant is None or variant.options is None:
        return (variant and variant.handle, row.sku_key)
    return (variant.handle, options_key(variant.options))


def _group_by_family(products: Iterable[Product]) -> Mapping[str, list[Product]]:
    by_family: dict[str, list[Product]] = {}
    for product in products:
        if product.family is not None:
            by_family.setdefault(product.family, []).append(product)
    return by_family


def _match_by_handle(
    rows: Iterable[ValidatedRow], by_family: Mapping[str, Sequence[Product]]
) -> Mapping[int, Product]:
    """Map the line number of each Shopify row to its product. Leave out rows without a match."""
    by_handle: dict[str, list[ValidatedRow]] = {}
    for row in rows:
        if row.variant is not None:
            by_handle.setdefault(row.variant.handle, []).append(row)
    matched: dict[int, Product] = {}
    for handle, handle_rows in by_handle.items():
        matched |= match_variants(handle_rows, by_family.get(handle, ()))
    return matched
