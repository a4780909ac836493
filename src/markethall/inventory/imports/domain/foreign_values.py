"""Cut values from other shop systems to the limits of product fields."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from typing import Final

from markethall.inventory.catalogue.contract.fields import (
    MAX_CATEGORY_DEPTH,
    MAX_CATEGORY_LENGTH,
    MAX_LABEL_LENGTH,
    join_path,
    split_path,
)
from markethall.inventory.catalogue.contract.products import MAX_IMAGE_URL_LENGTH
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


CUT_PATH_MESSAGE: Final = (
    f"has more than {MAX_CATEGORY_LENGTH} characters, or {MAX_LABEL_LENGTH} in a name: cut"
)
_SCHEME: Final = re.compile(r"(?i)[a-z][a-z0-9+.-]*:")
_HOST: Final = re.compile(r"[\w-]+(?:\.[\w-]+)+(?::[0-9]+)?(?:[/?#].*)?")
_HTTP_URL: Final = re.compile(r"https?://[^\s/][^\s]*")


def cut_path(text: str) -> str:
    """Cut the path of a category to the limits of length and depth."""
    names = [name[:MAX_LABEL_LENGTH].rstrip() for name in split_path(text)[:MAX_CATEGORY_DEPTH]]
    while len(join_path(names)) > MAX_CATEGORY_LENGTH:
        names.pop()
    return join_path(names)


def complete_url(text: str) -> str | None:
    """Add `https:` to a URL without a scheme. Return None if the URL is not a valid HTTP URL."""
    url = text.strip().replace(" ", "%20")
    if url.startswith("//"):
        url = f"https:{url}"
    elif not _SCHEME.match(url) and _HOST.fullmatch(url):
        url = f"https://{url}"
    scheme, colon, rest = url.partition(":")
    url = f"{scheme.lower()}{colon}{rest}"
    is_valid = _HTTP_URL.fullmatch(url) and len(url) <= MAX_IMAGE_URL_LENGTH
    return url if is_valid else None


def distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


_BLOCK_TAGS: Final = frozenset(
    {"address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption",
     "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "ol", "p", "pre",
     "section", "table", "td", "th", "tr", "ul"}
)  # fmt: skip
_HIDDEN_TAGS: Final = frozenset({"script", "style", "template"})
_WHITESPACE: Final = re.compile(r"[ \t\r\f\v\n\xa0]+")
_MARKUP: Final = re.compile(r"[<&]")


class _TextExtractor(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = [""]
        self._hidden_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden_depth += tag in _HIDDEN_TAGS
        self._start_line_before_block(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden_depth = max(0, self._hidden_depth - (tag in _HIDDEN_TAGS))
        self._start_line_before_block(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden_depth:
            self.lines[-1] += data

    def _start_line_before_block(self, tag: str) -> None:
        if tag in _BLOCK_TAGS:
            self.lines.append("")


def html_to_text(html: str) -> str:
    """Convert blocks to lines and entities to characters. Remove scripts and styles."""
    if not _MARKUP.search(html):
        return html.strip()
    extractor = _TextExtractor()
    extractor.feed(html)
    extractor.close()
    lines = (_WHITESPACE.sub(" ", line).strip() for line in extractor.lines)
    return "\n".join(line for line in lines if line)
