"""Derive the SKU of a product whose row has none."""

import hashlib
import re
from collections.abc import Mapping
from typing import Final

# the maximum length of a derived SKU, in characters
MAX_SKU_LENGTH: Final = 64

_SAFE_SKU_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_UNSAFE_SKU_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9_-]+")


def stable_sku(handle: str, options: Mapping[str, str]) -> str:
    """Derive the SKU of a variant without one. The same variant always gets the same SKU."""
    parts = [handle, *options.values()]
    sku = ".".join(parts)
    is_plain = all(_SAFE_SKU_PART.fullmatch(part) for part in parts)
    # only in lower case, because SKUs ignore case: the options "m" and "M" would get the same SKU
    if is_plain and sku == sku.lower() and len(sku) <= MAX_SKU_LENGTH:
        return sku
    # a digest, because two variants may differ only in characters that are replaced
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:12]
    readable = ".".join(_UNSAFE_SKU_CHARACTERS.sub("-", part).strip("-_") for part in parts).strip(
        "."
    )
    return f"{readable[: MAX_SKU_LENGTH - 13]}-{digest}" if readable else digest
