"""Keys by which texts are compared: SKUs, labels, names in a sorted list, words of a search.

Python computes the keys and Postgres stores them, so the memory store and the Postgres store
compare texts in the same way.
"""

import hashlib
import unicodedata
from typing import Final

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
