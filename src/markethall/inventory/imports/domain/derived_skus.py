"""Derive the SKU of a row without one, and the label of a family from its title."""

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from markethall.inventory.catalogue.domain.text_keys import fold_letters

# the maximum length of a derived SKU, in characters
MAX_SKU_LENGTH: Final = 64

_SAFE_SKU_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_UNSAFE_SKU_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_SLUG_LENGTH: Final = 80
_UMLAUTS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "ae", "Ö": "oe", "Ü": "ue"})
_BETWEEN_SLUG_WORDS: Final = re.compile(r"[^a-z0-9]+")


def stable_sku(handle: str, options: Mapping[str, str]) -> str:
    """Derive the SKU of a variant without one. The same variant always gets the same SKU."""
    parts = [handle, *options.values()]
    sku = ".".join(parts)
    is_plain = all(_SAFE_SKU_PART.fullmatch(part) for part in parts)
    # lower case only, because SKUs are compared without case: "m" and "M" would get the same SKU
    if is_plain and sku == sku.lower() and len(sku) <= MAX_SKU_LENGTH:
        return sku
    # the digest distinguishes variants that differ only in characters that are replaced
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:12]
    readable = ".".join(_UNSAFE_SKU_CHARACTERS.sub("-", part).strip("-_") for part in parts).strip(
        "."
    )
    return f"{readable[: MAX_SKU_LENGTH - 13]}-{digest}" if readable else digest


def derive_slug(title: str, suffix: str) -> str:
    """Return a name for URLs, such as "kapuzenpullover-1042", made of a title and a suffix."""
    texts = (fold_letters(text.translate(_UMLAUTS)) for text in (title, suffix))
    words, end = (_BETWEEN_SLUG_WORDS.sub("-", text).strip("-") for text in texts)
    words = words[: _MAX_SLUG_LENGTH - len(end)].strip("-")
    return "-".join(part for part in (words, end) if part) or "product"
