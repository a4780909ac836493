"""Creates the categories of the generated catalogue, and imports its products."""

import csv
import json
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import count, islice, product
from random import Random
from typing import Any, Final

from markethall.inventory.catalogue.contract.categories import (
    Categories,
    CategoryTaken,
    CategoryTranslation,
    NewCategory,
)
from markethall.inventory.imports.contract import ImportFormat, Imports, NewImport
from markethall.local.demo.vocabulary import (
    CATEGORIES,
    MAKERS,
    PRODUCT_TEMPLATES,
    SERIES,
    CategoryTemplate,
    OptionValues,
    ProductTemplate,
)
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import new_id

_NAMES: Final = len(PRODUCT_TEMPLATES) * len(MAKERS) * len(SERIES)
# coprime to the number of names, so that every name is used once before one is repeated
_STRIDE: Final = 30_011
_MAX_FAMILY_SIZE: Final = 12
_TRANSLATED_SHARE, _REDUCED_SHARE, _SOLD_OUT_SHARE, _LOW_STOCK_SHARE = 0.3, 0.15, 0.06, 0.1
_CLOSING_SHARE: Final = 0.6

Choice = tuple[str, str, str, str]


@dataclass(frozen=True)
class _Family:
    number: int
    template: ProductTemplate
    maker: str
    series: str
    material: str
    price: int
    weight: int
    sentences: str
    translated: bool
    tags: tuple[str, ...]


def generate_products(count: int) -> Iterator[dict[str, Any]]:
    """Yield the first `count` products as rows of an import, family by family."""
    return islice(_all_products(), count)


def as_ndjson_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _all_products() -> Iterator[dict[str, Any]]:
    for number in count(1):
        rng = Random(number)
        family = _family(number, rng)
        for choices in _members(family.template, rng):
            yield _row(family, choices, rng)


def _family(number: int, rng: Random) -> _Family:
    rest, template_index = divmod(number * _STRIDE % _NAMES, len(PRODUCT_TEMPLATES))
    maker, series = divmod(rest, len(SERIES))
    repetition = number // _NAMES
    template = PRODUCT_TEMPLATES[template_index]
    material = rng.choice(template.materials)
    return _Family(
        number=number,
        template=template,
        maker=MAKERS[maker],
        series=SERIES[series] + (f" {repetition + 1}" if repetition else ""),
        material=material,
        price=_price(rng, *template.prices),
        weight=rng.randint(*template.weights),
        sentences=_sentences(template, MAKERS[maker], material, rng),
        translated=rng.random() < _TRANSLATED_SHARE,
        tags=(material.split()[-1], *(("new",) if rng.random() < _REDUCED_SHARE else ())),
    )


def _price(rng: Random, lowest: int, highest: int) -> int:
    """Return a random price in cents that ends in 90; low prices are more likely."""
    cents = lowest + (highest - lowest) * rng.random() ** 2
    return round(cents / 100) * 100 - 10


def _sentences(template: ProductTemplate, maker: str, material: str, rng: Random) -> str:
    noun = template.noun.lower()
    use, other = rng.sample([*template.uses, "made to be mended"], 2)
    first = f"{noun.capitalize()} of {material}, {use}, {other}."
    second = f"Made by {maker} {rng.choice(_PLACES)}."
    third = rng.choice(_CLOSINGS)
    has_closing = rng.random() < _CLOSING_SHARE
    return " ".join([first, second, third] if has_closing else [first, second])


_PLACES: Final = (
    "in a small workshop by the sea", "in Porto", "in the Black Forest", "in Lyon", "in Gdansk",
    "in small batches", "with a cooperative in Umbria", "in Sheffield",
)  # fmt: skip
_CLOSINGS: Final = (
    "Guaranteed for ten years.", "Every piece is a little different.", "Comes in a box of card.",
    "Spare parts are kept for twenty years.", "Tested for a winter before it was sold.",
)  # fmt: skip


def _members(
    template: ProductTemplate, rng: Random
) -> list[tuple[tuple[OptionValues, Choice], ...]]:
    """Return the members of a family, each with one value for every option of the template.

    Some values of each option are chosen at random; the members are their combinations.
    """
    choices = [
        [(option, value) for value in _some_values(option, rng)] for option in template.options
    ]
    return list(islice(product(*choices), _MAX_FAMILY_SIZE))


def _some_values(option: OptionValues, rng: Random) -> list[Choice]:
    number = rng.randint(1, min(option.max_values, len(option.values)))
    indexes = set(rng.sample(range(len(option.values)), number))
    return [value for index, value in enumerate(option.values) if index in indexes]


def _row(
    family: _Family, choices: tuple[tuple[OptionValues, Choice], ...], rng: Random
) -> dict[str, Any]:
    sku = "-".join(
        [family.template.code, f"{family.number:05d}", *(value[3] for _, value in choices)]
    )
    reduced = rng.random() < _REDUCED_SHARE
    row: dict[str, Any] = {
        "sku": sku,
        "name": _name(family, family.template.noun, [value[0] for _, value in choices]),
        "description": family.sentences,
        "price": {"amount": family.price, "currency": "EUR"},
        "compare_at": round(family.price * 1.25 / 100) * 100 if reduced else None,
        "category": family.template.category,
        "family": f"{family.template.code.lower()}-{family.number:05d}",
        "options": {option.name: value[0] for option, value in choices},
        "tags": [*family.tags, *(["sale"] if reduced else [])],
        "attributes": {"maker": family.maker, "material": family.material},
        "barcode": _ean(family.number, rng),
        "weight_grams": family.weight,
        "on_hand": _stock(rng),
    }
    if family.translated:
        row["translations"] = _translations(family, [value for _, value in choices])
    return row


def _name(family: _Family, noun: str, values: list[str]) -> str:
    return ", ".join([f"{family.maker} {family.series} {noun}", *values])


def _translations(family: _Family, values: list[Choice]) -> Mapping[str, Mapping[str, str]]:
    return {
        "de": {"name": _name(family, family.template.german, [value[1] for value in values])},
        "fr": {"name": _name(family, family.template.french, [value[2] for value in values])},
    }


def _ean(number: int, rng: Random) -> str:
    """Return an EAN-13 that begins with 2, the range that GS1 reserves for use within a shop."""
    digits = f"2{number % 10**7:07d}{rng.randrange(10**4):04d}"
    weighted = sum(int(digit) * (3 if index % 2 else 1) for index, digit in enumerate(digits))
    return digits + str(-weighted % 10)


def _stock(rng: Random) -> int:
    draw = rng.random()
    if draw < _SOLD_OUT_SHARE:
        return 0
    return rng.randint(1, 4) if draw < _SOLD_OUT_SHARE + _LOW_STOCK_SHARE else rng.randint(5, 250)


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
