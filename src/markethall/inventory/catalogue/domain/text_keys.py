"""Keys by which texts are compared: SKUs, labels, names in a sorted list, words of a search.

Two tags, option names or attribute names are equal if they have the same `label_key`, so "Red"
equals "red". When equal ones are merged, the first spelling stays.

Slugs are the texts that identify families and products in URLs. A product without a family has a
URL too. Its slug ends with the product id as a ULID. So the slug is unique, is not stored, and
still identifies the product after a change of the SKU.

Python computes the keys and Postgres stores them, so the memory store and the Postgres store
compare texts in the same way.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

# replacements of ligatures and other letters that NFKD does not decompose
_PLAIN_LETTERS: Final = str.maketrans(
    {
        "ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "\u0131": "i", "ŋ": "n",
        "ĸ": "k", "æ": "ae", "œ": "oe", "þ": "th", "ß": "ss",
        "ƀ": "b", "ɨ": "i", "ɫ": "l", "ɵ": "o",
    }
)  # fmt: skip
# characters; one may have 4 bytes, and an index row of Postgres holds at most 2,700 bytes
_MAX_KEY_LENGTH: Final = 150
_DIGEST_LENGTH: Final = 64


def sku_key(sku: str) -> str:
    """Return the key that must be unique among SKUs: trimmed, case-folded and in NFC."""
    sku = sku.strip()
    if sku.isascii():
        return sku.lower()
    folded = unicodedata.normalize("NFC", sku).casefold()
    return unicodedata.normalize("NFC", folded)


def label_key(label: str) -> str:
    """Return the key of a category name, tag, option name or option value.

    It ignores letter case, the kind and number of spaces, and the Unicode normalization form.
    """
    if label.isascii():
        return shorten_key(" ".join(label.lower().split()))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return shorten_key(" ".join(folded.split()))


def spelling_key(text: str) -> str:
    """Return the text in NFKC with single spaces. Unlike `label_key`, keep the letter case."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def shorten_key(key: str) -> str:
    """Make the key short enough for an index.

    The end of a long key is replaced by a digest of the whole key, so distinct keys stay distinct.
    """
    if len(key) <= _MAX_KEY_LENGTH:
        return key
    # surrogatepass, because an import computes keys before it rejects texts that are not UTF-8
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return key[: _MAX_KEY_LENGTH - _DIGEST_LENGTH] + digest


def fold_letters(text: str) -> str:
    """Return the text in lower case without accents, strokes and ligatures: "Łódź" gives lodz."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    without_marks = "".join(c for c in folded if not unicodedata.category(c).startswith("M"))
    return without_marks.translate(_PLAIN_LETTERS)


def name_key(name: str) -> str:
    """Return the key by which names are sorted, short enough for an index."""
    return " ".join(fold_letters(name).split())[:_MAX_KEY_LENGTH]


def fold_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Drop each tag that equals an earlier tag."""
    first: dict[str, str] = {}
    for tag in tags:
        first.setdefault(label_key(tag), tag)
    return tuple(first.values())


def fold_names(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Drop each entry whose name equals an earlier name."""
    first: dict[str, str] = {}
    for name in values:
        first.setdefault(label_key(name), name)
    return {name: values[name] for name in first.values()}


def respell_tags(current: Iterable[str], tags: Iterable[str]) -> tuple[str, ...]:
    """Replace each tag that equals a current tag by the current tag, to keep its spelling."""
    spelling = {label_key(tag): tag for tag in current}
    return tuple(spelling.get(label_key(tag), tag) for tag in tags)


def respell_names(current: Iterable[str], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Replace each name that equals a current name by the current name, to keep its spelling."""
    spelling = {label_key(name): name for name in current}
    return {spelling.get(label_key(name), name): value for name, value in values.items()}


def respell_options(current: Mapping[str, str], options: Mapping[str, str]) -> Mapping[str, str]:
    """Keep the current spelling of equal names, and of values with the same `spelling_key`."""
    respelled = respell_names(current, options)
    return {
        name: current[name]
        if name in current and spelling_key(current[name]) == spelling_key(value)
        else value
        for name, value in respelled.items()
    }


def option_keys(options: Mapping[str, str]) -> Mapping[str, str]:
    return {label_key(name): label_key(value) for name, value in options.items()}


def attribute_keys(attributes: Mapping[str, str | int | bool]) -> Mapping[str, str]:
    """Return the `label_key` of each name, with the `label_key` of the text of its value.

    An attribute whose text is empty or has only spaces has no key, so no filter finds it.
    """
    keys = ((label_key(name), label_key(attribute_text(attributes[name]))) for name in attributes)
    return {name: value for name, value in keys if value}


def attribute_text(value: str | int | bool) -> str:
    """Return the text by which a filter finds an attribute: true, false, digits, or the text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def find_attribute(
    attributes: Mapping[str, str | int | bool], name_key: str
) -> tuple[str, str] | None:
    """Return the name, and the text of the value, of the attribute with this `label_key`.

    Return None if no name has it, as in `find_option`.
    """
    return find_option({name: attribute_text(attributes[name]) for name in attributes}, name_key)


def find_option(options: Mapping[str, str], name_key: str) -> tuple[str, str] | None:
    """Return the name and the value of the option whose name has this `label_key`.

    Return None if no name has it: a Python version with older Unicode data may have computed the
    stored `name_key`.
    """
    found = ((name, value) for name, value in options.items() if label_key(name) == name_key)
    return next(found, None)


_OTHER_CHARACTERS: Final = re.compile(r"[^a-z0-9]+")
# in characters, without the suffix of a slug
MAX_BASE_LENGTH: Final = 100
_SLUG_WITHOUT_LETTERS: Final = "family"
# the digits of a ULID (Crockford's base 32), in order
_ULID_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_ULID_LENGTH: Final = 26
_ULID_AT_END: Final = re.compile(rf"(?:^|-)([{_ULID_DIGITS}]{{{_ULID_LENGTH}}})$")
_DIGEST_LENGTHS: Final = (6, 12, 24)
_BITS_PER_DIGIT: Final = 5


def slug_candidates(label: str) -> Sequence[str]:
    """Return the slugs that a new family with this label may get, the best first.

    Every slug after the first ends with a digest of the label, so that two labels with the same
    first slug still have different slugs.
    """
    base = slugify(label) or _SLUG_WITHOUT_LETTERS
    # surrogatepass, because an import computes slugs before it rejects texts that are not UTF-8
    digest = hashlib.sha256(label_key(label).encode("utf-8", "surrogatepass")).hexdigest()
    candidates = [base, *(f"{base}-{digest[:length]}" for length in _DIGEST_LENGTHS)]
    return [slug for slug in candidates if product_id_of_slug(slug) is None]


def product_slug(sku: str, product_id: UUID) -> str:
    """Return the slug of a product without a family, such as "tea-100-01jd…"."""
    base = slugify(sku)
    return f"{base}-{_to_ulid(product_id)}" if base else _to_ulid(product_id)


def product_id_of_slug(slug: str) -> UUID | None:
    """Return the id at the end of a product's slug, or None if the slug is not of this form."""
    found = _ULID_AT_END.search(slug)
    if found is None:
        return None
    number = 0
    for digit in found[1]:
        number = number << _BITS_PER_DIGIT | _ULID_DIGITS.index(digit)
    # 26 digits encode 130 bits, and a UUID has 128
    return UUID(int=number) if number < 1 << 128 else None


def slugify(text: str) -> str:
    """Return the letters and digits of the text in ASCII, joined by hyphens; may be empty."""
    words = _OTHER_CHARACTERS.sub("-", fold_letters(text))
    return words.strip("-")[:MAX_BASE_LENGTH].rstrip("-")


def _to_ulid(product_id: UUID) -> str:
    shifts = range((_ULID_LENGTH - 1) * _BITS_PER_DIGIT, -1, -_BITS_PER_DIGIT)
    return "".join(_ULID_DIGITS[product_id.int >> shift & 31] for shift in shifts)
