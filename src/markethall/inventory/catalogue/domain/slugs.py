"""Slugs: the texts that identify families and products in URLs.

A product without a family has a URL too. Its slug ends with the product id as a ULID. So the slug
is unique, is not stored, and still identifies the product after a change of the SKU.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from markethall.inventory.catalogue.domain.text_keys import fold_letters, label_key

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
