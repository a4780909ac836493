"""Keys by which texts are compared: SKUs, names in a list, words of a search.

Postgres stores the keys that Python computes, so that both backends compare alike.
"""

import unicodedata
from typing import Final

# letters with a stroke and ligatures: Unicode does not decompose them
_PLAIN_LETTERS: Final = str.maketrans(
    {
        "ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "\u0131": "i", "ŋ": "n",
        "ĸ": "k", "æ": "ae", "œ": "oe", "þ": "th", "ß": "ss",
        "ƀ": "b", "ɨ": "i", "ɫ": "l", "ɵ": "o",
    }
)  # fmt: skip
# a character may have 4 bytes, and a row of an index 2700
_MAX_NAME_KEY_LENGTH: Final = 150


def sku_key(sku: str) -> str:
    """Return the key that is unique among SKUs: without regard to case, in NFC."""
    sku = sku.strip()
    if sku.isascii():
        return sku.lower()
    folded = unicodedata.normalize("NFC", sku).casefold()
    return unicodedata.normalize("NFC", folded)


def fold_letters(text: str) -> str:
    """Return the text without case, accents, strokes and ligatures: "Łódź" gives lodz."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    without_marks = "".join(c for c in folded if not unicodedata.category(c).startswith("M"))
    return without_marks.translate(_PLAIN_LETTERS)


def name_key(name: str) -> str:
    """Return the key by which names are sorted, short enough for an index."""
    return " ".join(fold_letters(name).split())[:_MAX_NAME_KEY_LENGTH]
