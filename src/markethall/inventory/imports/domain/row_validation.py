from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from pydantic import ValidationError

from markethall.inventory.catalogue.contract.families import SeoView
from markethall.inventory.catalogue.contract.products import AdditionalPriceView
from markethall.inventory.catalogue.domain.products import Product, sort_like_jsonb, to_stored_value
from markethall.inventory.catalogue.domain.text_keys import (
    label_key,
    respell_names,
    respell_options,
    respell_tags,
    sku_key,
)
from markethall.inventory.imports.contract import ImportedFamily, ImportedProduct
from markethall.inventory.imports.domain.file_records import (
    FileChunk,
    FilePosition,
    FileRecord,
    RowError,
    RowWarning,
    sanitize,
)

MAX_ERRORS_PER_ROW: Final = 10
_UNASSIGNED_ID: Final = UUID(int=0)
_UNASSIGNED_TIME: Final = datetime.min.replace(tzinfo=UTC)
# placeholders for required fields, because a row may omit these fields if its product exists
_PLACEHOLDERS: Final[Mapping[str, Any]] = MappingProxyType(
    {"name": "-", "price": MappingProxyType({"amount": 0, "currency": "EUR"})}
)

# The stored values of fields of a family that an import sets to null. Others store None.
_EMPTY_FAMILY_VALUES: Final[Mapping[str, Any]] = {"description": "", "images": ()}

# maps the path of a value in the model to the line and the field name in the file
FieldLocator = Callable[[tuple[Any, ...]], tuple[int, str]]


@dataclass(frozen=True)
class Variant:
    """The identity of a Shopify row: its handle and options. The SKU is not part of it.

    `options` is None if the file has no columns for options. `has_sku` is false if the row has no
    SKU; then the product gets a SKU derived from the handle and the options.
    """

    handle: str
    options: Mapping[str, str] | None
    has_sku: bool


@dataclass(frozen=True)
class WooReferences:
    """The SKU keys that find the product of a WooCommerce row, and its family.

    If no product has the SKU of the row, the row belongs to the first product with one of
    `other_sku_keys`. A new product joins the family of the first product with one of
    `sibling_sku_keys`, because the family's name in the file may differ from the label that an
    earlier import stored.
    """

    other_sku_keys: tuple[str, ...] = ()
    sibling_sku_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class ValidatedRow:
    """A valid row. If its product exists, only the fields in `provided_fields` are changed."""

    line: int
    # The product that the row would create. It is built when the row is read, because the process
    # has time then: it waits for the database, which writes the previous batch.
    product: Product
    on_hand: int | None
    provided_fields: frozenset[str]
    locate: FieldLocator
    missing_field_errors: tuple[RowError, ...] = ()
    variant: Variant | None = None
    # the keys of the attributes for which the file has columns; None means all
    attribute_names: frozenset[str] | None = None
    warnings: tuple[RowWarning, ...] = ()
    woo: WooReferences | None = None

    @property
    def sku_key(self) -> str:
        return sku_key(self.product.sku)

    @property
    def lookup_sku_keys(self) -> tuple[str, ...]:
        """The keys of all SKUs by which the product or its family may be found."""
        if self.woo is None:
            return (self.sku_key,)
        return (self.sku_key, *self.woo.other_sku_keys, *self.woo.sibling_sku_keys)

    @property
    def description(self) -> str:
        """A name of the product for messages."""
        return describe_product(self.product)

    def to_product(self, product_id: UUID, now: datetime) -> Product:
        assigned = {"product_id": product_id, "created_at": now, "updated_at": now}
        # not dataclasses.replace(), which would take twice as long as all other work for a row
        return Product(**(vars(self.product) | assigned))

    def apply_to(self, product: Product, now: datetime) -> Sequence[str]:
        """Copy the provided fields into `product`. Return the names of the fields that change."""
        return product.copy_fields_from(self._merged_into(product), self.provided_fields, now)

    def _merged_into(self, product: Product) -> Product:
        """Return the product of the row, with tags and names spelled as in `product`.

        Add the attributes of `product` for which the file has no column.
        """
        new, names = self.product, self.attribute_names
        kept = {
            name: value
            for name, value in product.attributes.items()
            if names is not None and label_key(name) not in names
        }
        attributes = {**kept, **respell_names(product.attributes, new.attributes)}
        return replace(
            new,
            prices=self._merged_prices(product),
            tags=respell_tags(product.tags, new.tags),
            options=sort_like_jsonb(respell_options(product.options, new.options)),
            attributes=sort_like_jsonb(attributes),
        )

    def _merged_prices(self, product: Product) -> tuple[AdditionalPriceView, ...]:
        """Return the prices of the row. A WooCommerce row keeps prices in other currencies."""
        new = self.product
        if self.woo is None:
            return new.prices
        others = [price for price in product.prices if price.currency != new.price.currency]
        return (*others, *new.prices)


def describe_product(product: Product) -> str:
    """Return a name for messages, such as "Cap (Size: S)"."""
    options = ", ".join(f"{name}: {value}" for name, value in product.options.items())
    text = f"{product.name} ({options})" if options else product.name
    return text[:100]


@dataclass(frozen=True)
class FamilyRow:
    """The family that a row describes: its label, and its fields with the values to store.

    If the family exists, only the fields in `values` are changed.
    """

    line: int
    label: str
    values: Mapping[str, Any]
    locate: FieldLocator
    warnings: tuple[RowWarning, ...] = ()
    woo: WooReferences | None = None

    @property
    def category(self) -> str | None:
        """The text that names the category, or None."""
        category: str | None = self.values.get("category")
        return category


# a valid row, or the errors of an invalid row
RowResult = ValidatedRow | FamilyRow | tuple[RowError, ...]


class ReadStep(NamedTuple):
    """Rows that are read together, and the file position after them.

    `size` is the number of bytes that were read since the previous step. A step without rows may
    have the same position as the previous step. It only lets the caller count the bytes.
    """

    rows: tuple[RowResult, ...]
    record_count: int
    next_position: FilePosition
    size: int


def read_each(
    records: Iterable[FileRecord], read: Callable[[FileRecord], RowResult]
) -> Iterator[ReadStep]:
    """Yield one step per record. A blank record has no row."""
    for record in records:
        rows: tuple[RowResult, ...] = ()
        if record.error:
            rows = ((record.error,),)
        elif not record.is_blank:
            rows = (read(record),)
        yield ReadStep(rows, len(rows), record.next_position, record.size)


class StepReader(Protocol):
    def read_steps(self, chunk: FileChunk) -> Iterator[ReadStep]:
        """Yield the complete records of the chunk, a few per step.

        Ignore an incomplete record at the end. The caller reads it again with the next chunk.
        """


def validate_row(
    line: int,
    values: Mapping[str, Any],
    locate: FieldLocator,
    *,
    not_for_existing: Collection[str] = ("sku",),
    variant: Variant | None = None,
    attribute_names: frozenset[str] | None = None,
    warnings: tuple[RowWarning, ...] = (),
    woo: WooReferences | None = None,
) -> ValidatedRow | tuple[RowError, ...]:
    """Validate the values of a row. Return the row, or its errors.

    For an existing product, the fields in `not_for_existing` are ignored.
    """
    absent = [name for name in _PLACEHOLDERS if name not in values]
    complete = {**values, **{name: _PLACEHOLDERS[name] for name in absent}}
    try:
        command = ImportedProduct.model_validate(complete)
    except ValidationError as error:
        return row_errors(error, locate)
    missing_errors = tuple(RowError(*locate((name,)), "missing", "is required") for name in absent)
    return ValidatedRow(
        line=line,
        product=Product.new(_UNASSIGNED_ID, command, _UNASSIGNED_TIME),
        on_hand=command.on_hand,
        provided_fields=frozenset(values).difference(not_for_existing, ("on_hand",)),
        locate=locate,
        missing_field_errors=missing_errors,
        variant=variant,
        attribute_names=attribute_names,
        warnings=warnings,
        woo=woo,
    )


def validate_family(
    line: int,
    values: Mapping[str, Any],
    locate: FieldLocator,
    *,
    warnings: tuple[RowWarning, ...] = (),
    woo: WooReferences | None = None,
) -> FamilyRow | tuple[RowError, ...]:
    """Validate the values of a family. Return its row, or the errors."""
    try:
        command = ImportedFamily.model_validate(values)
    except ValidationError as error:
        return row_errors(error, locate)
    fields = {
        name: _stored_family_value(name, getattr(command, name))
        for name in command.model_fields_set
        if name != "label"
    }
    return FamilyRow(line, command.label, fields, locate, warnings, woo)


def _stored_family_value(name: str, value: Any) -> Any:
    if name == "seo":
        title, description = (value.title, value.description) if value else (None, None)
        return SeoView(title=title, description=description)
    if name in {"metadata", "translations"}:
        entries = {key: part for key, part in (value or {}).items() if part is not None}
        return sort_like_jsonb(entries) if name == "metadata" else to_stored_value(entries)
    return _EMPTY_FAMILY_VALUES.get(name) if value is None else to_stored_value(value)


def row_errors(error: ValidationError, locate: FieldLocator) -> tuple[RowError, ...]:
    """Return the first errors, each with its line and the field in the file."""
    details = error.errors(include_url=False, include_context=False)
    return tuple(_row_error(detail, locate) for detail in details[:MAX_ERRORS_PER_ROW])


def _row_error(detail: Any, locate: FieldLocator) -> RowError:
    line, field = locate(detail["loc"])
    if isinstance(detail["input"], str) and not _is_valid_unicode(detail["input"]):
        return RowError(line, field, "encoding", "is not UTF-8")
    return RowError(
        line, field, detail["type"], sanitize(detail["msg"].removeprefix("Value error, "))[:200]
    )


def _is_valid_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
