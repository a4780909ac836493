"""A market of any size that looks like one, and is the same each time.

Product n is the same in a market of a hundred and of a million: what is made hangs on the number
of its family alone.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice, product
from random import Random
from typing import Any, Final

from markethall.demo.words import CATEGORIES, KINDS, MAKERS, SERIES, Axis, Branch, Kind

__all__ = ["CATEGORIES", "Branch", "as_line", "as_ndjson", "market"]

_NAMES: Final = len(KINDS) * len(MAKERS) * len(SERIES)
# shares no factor with it: every name comes once before any comes again
_STRIDE: Final = 30_011
_MOST_MEMBERS: Final = 12
_TRANSLATED, _REDUCED, _SOLD_OUT, _LOW = 0.3, 0.15, 0.06, 0.1

Choice = tuple[str, str, str, str]


@dataclass(frozen=True)
class _Family:
    number: int
    kind: Kind
    maker: str
    series: str
    material: str
    price: int
    weight: int
    sentences: str
    translated: bool
    tags: tuple[str, ...]


def market(products: int) -> Iterator[dict[str, Any]]:
    """The first so many products, each as a line of an import. Members of a family in a row."""
    return islice(_all(), products)


def as_ndjson(products: int) -> Iterator[bytes]:
    """The same as lines of a file."""
    for row in market(products):
        yield as_line(row)


def as_line(row: Mapping[str, Any]) -> bytes:
    """As an import reads it."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _all() -> Iterator[dict[str, Any]]:
    for number in count(1):
        chance = Random(number)  # noqa: S311 - nothing secret
        family = _family(number, chance)
        for choices in _members(family.kind, chance):
            yield _row(family, choices, chance)


def _family(number: int, chance: Random) -> _Family:
    place = number * _STRIDE % _NAMES
    place, kind = divmod(place, len(KINDS))
    maker, series = divmod(place, len(SERIES))
    again = number // _NAMES
    goods = KINDS[kind]
    material = chance.choice(goods.materials)
    return _Family(
        number=number,
        kind=goods,
        maker=MAKERS[maker],
        series=SERIES[series] + (f" {again + 1}" if again else ""),
        material=material,
        price=_price(chance, *goods.prices),
        weight=chance.randint(*goods.weights),
        sentences=_sentences(goods, MAKERS[maker], material, chance),
        translated=chance.random() < _TRANSLATED,
        tags=(material.split()[-1], *(("new",) if chance.random() < _REDUCED else ())),
    )


def _price(chance: Random, least: int, most: int) -> int:
    """Cheap things are many. In whole tens of cents less ten, as shops like it."""
    cents = least + (most - least) * chance.random() ** 2
    return round(cents / 100) * 100 - 10


def _sentences(kind: Kind, maker: str, material: str, chance: Random) -> str:
    noun = kind.noun.lower()
    use, other = chance.sample([*kind.uses, "made to be mended"], 2)
    first = f"{noun.capitalize()} of {material}, {use}, {other}."
    second = f"Made by {maker} {chance.choice(_PLACES)}."
    third = chance.choice(_CLOSINGS)
    return " ".join([first, second, third] if chance.random() < 0.6 else [first, second])  # noqa: PLR2004


_PLACES: Final = (
    "in a small workshop by the sea", "in Porto", "in the Black Forest", "in Lyon", "in Gdansk",
    "in small batches", "with a cooperative in Umbria", "in Sheffield",
)  # fmt: skip
_CLOSINGS: Final = (
    "Guaranteed for ten years.", "Every piece is a little different.", "Comes in a box of card.",
    "Spare parts are kept for twenty years.", "Tested for a winter before it was sold.",
)  # fmt: skip


def _members(kind: Kind, chance: Random) -> list[tuple[tuple[Axis, Choice], ...]]:
    """Some values of each option, all combined, the first ones of them."""
    axes = [[(axis, value) for value in _some(axis, chance)] for axis in kind.axes]
    return list(islice(product(*axes), _MOST_MEMBERS))


def _some(axis: Axis, chance: Random) -> list[Choice]:
    number = chance.randint(1, min(axis.most, len(axis.values)))
    kept = set(chance.sample(range(len(axis.values)), number))
    return [value for place, value in enumerate(axis.values) if place in kept]


def _row(
    family: _Family, choices: tuple[tuple[Axis, Choice], ...], chance: Random
) -> dict[str, Any]:
    sku = "-".join([family.kind.code, f"{family.number:05d}", *(value[3] for _, value in choices)])
    reduced = chance.random() < _REDUCED
    row: dict[str, Any] = {
        "sku": sku,
        "name": _name(family, family.kind.noun, [value[0] for _, value in choices]),
        "description": family.sentences,
        "price": {"amount": family.price, "currency": "EUR"},
        "compare_at": round(family.price * 1.25 / 100) * 100 if reduced else None,
        "category": family.kind.category,
        "family": f"{family.kind.code.lower()}-{family.number:05d}",
        "options": {axis.name: value[0] for axis, value in choices},
        "tags": [*family.tags, *(["sale"] if reduced else [])],
        "attributes": {"maker": family.maker, "material": family.material},
        "barcode": _ean(family.number, chance),
        "weight_grams": family.weight,
        "on_hand": _stock(chance),
    }
    if family.translated:
        row["translations"] = _translations(family, [value for _, value in choices])
    return row


def _name(family: _Family, noun: str, values: list[str]) -> str:
    return ", ".join([f"{family.maker} {family.series} {noun}", *values])


def _translations(family: _Family, values: list[Choice]) -> Mapping[str, Mapping[str, str]]:
    return {
        "de": {"name": _name(family, family.kind.german, [value[1] for value in values])},
        "fr": {"name": _name(family, family.kind.french, [value[2] for value in values])},
    }


def _ean(number: int, chance: Random) -> str:
    """EAN-13 of the range that GS1 keeps for use inside a shop (it begins with 2)."""
    digits = f"2{number % 10**7:07d}{chance.randrange(10**4):04d}"
    weighted = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits))
    return digits + str(-weighted % 10)


def _stock(chance: Random) -> int:
    """Some are sold out, some are few."""
    luck = chance.random()
    if luck < _SOLD_OUT:
        return 0
    return chance.randint(1, 4) if luck < _SOLD_OUT + _LOW else chance.randint(5, 250)
