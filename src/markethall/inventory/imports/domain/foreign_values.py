"""Read values from other shop systems, and cut them to the limits of product fields.

The cells of WooCommerce's product CSV have lists, amounts, weights, dates and categories.
"""

import hashlib
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
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
from markethall.inventory.catalogue.domain.text_keys import fold_letters, label_key
from markethall.inventory.imports.domain.csv_columns import InvalidCell, parse_amount
from markethall.shared.kernel.money import EXPONENT_BY_CURRENCY

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


GRAMS_BY_UNIT: Final[Mapping[str, str]] = {
    "kg": "1000",
    "g": "1",
    "lb": "453.59237",
    "lbs": "453.59237",
    "oz": "28.349523125",
}
_MAX_DIGITS: Final = 30
_PLAIN_NUMBER: Final = re.compile(r"-?[0-9]+(?:[.,][0-9]+)?")
# digits in groups of three with one separator, and the other separator before the decimals
_GROUPED_NUMBER: Final = re.compile(
    r"(?:[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]+)?|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?)"
)
# the separator may divide thousands or decimals: "1.234" may be 1234 or 1.234
_AMBIGUOUS_AMOUNT: Final = re.compile(r"[1-9][0-9]{0,2}[.,][0-9]{3}")
_THOUSANDTHS: Final = 3
_LIST_SEPARATOR: Final = re.compile(r"(?<!\\),")
_DATE: Final = re.compile(
    r"(?:(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})"
    r"|(?P<d>[0-9]{1,2})\.(?P<m>[0-9]{1,2})\.(?P<y>[0-9]{4}))"
    r"(?:[ T](?P<time>[0-9]{1,2}:[0-9]{2})(?P<seconds>:[0-9]{2})?)?"
)
_END_OF_DAY: Final = ("23:59", ":59")
# the category that WooCommerce assigns to products without a category
_NO_CATEGORY: Final = (["uncategorized"], ["unkategorisiert"])


def split_list(text: str) -> list[str]:
    r"""Split a list at its commas. `\,` is a comma inside an entry, and `&amp;` is `&`."""
    parts = (part.replace("\\,", ",").strip() for part in _LIST_SEPARATOR.split(text))
    return [html.unescape(part) for part in parts if part]


def read_description(text: str) -> str:
    r"""Convert HTML to plain text. The export writes a line end as the two characters `\n`."""
    parts = (part.replace("\\n", "\n") for part in text.split("\\\\n"))
    return html_to_text("\\n".join(parts))


def parse_localized_amount(text: str, currency: str) -> int:
    """Convert an amount such as "1.299,90" or "1299.90" to minor units. Raises InvalidCell."""
    can_have_thousandths = EXPONENT_BY_CURRENCY[currency] >= _THOUSANDTHS
    if _AMBIGUOUS_AMOUNT.fullmatch(text) and not can_have_thousandths:
        raise InvalidCell(
            "is ambiguous: the separator may divide thousands or decimals; leave it out"
        )
    return parse_amount(_normalize_number(text), currency)


def parse_weight(text: str, unit: str) -> int:
    """Convert a weight such as "0,25" in this unit to grams. Raises InvalidCell."""
    factor = GRAMS_BY_UNIT.get(unit)
    if factor is None:
        raise InvalidCell(f"has the unit {unit[:20]!r}: one of {', '.join(GRAMS_BY_UNIT)} is known")
    grams = Decimal(_normalize_number(text)) * Decimal(factor)
    return int(grams.to_integral_value(ROUND_HALF_EVEN))


def parse_quantity(text: str) -> int:
    """Return the whole units. A negative number means units that are oversold. Raises InvalidCell.

    An extension of WooCommerce may count parts of a unit, such as 2.5 metres.
    """
    return max(0, int(Decimal(_normalize_number(text))))


def parse_sale_start(text: str) -> datetime:
    """Return the time when the sale starts, in UTC: the beginning of a day. Raises InvalidCell."""
    return _parse_date(text)[0]


def parse_sale_end(text: str) -> datetime:
    """Return the first time after the sale, in UTC. A date includes its day. Raises InvalidCell."""
    time, is_whole_day = _parse_date(text)
    try:
        return (
            time.replace(hour=0, minute=0, second=0) + timedelta(days=1) if is_whole_day else time
        )
    except OverflowError:
        raise InvalidCell("must be a date such as 2026-11-27") from None


def choose_category(text: str) -> tuple[str | None, Sequence[str]]:
    """Return the path of the deepest category, and the paths that are dropped.

    A product has one category. Of several paths with the same depth, the first one is used. The
    paths of its parents do not count as dropped.
    """
    paths = [
        path for part in split_list(text) if _keys(path := split_path(part)) not in _NO_CATEGORY
    ]
    if not paths:
        return None, ()
    chosen = max(paths, key=len)
    others = [path for path in paths if _keys(chosen[: len(path)]) != _keys(path)]
    return join_path(chosen), tuple(join_path(path) for path in others)


def _keys(path: Iterable[str]) -> list[str]:
    return [label_key(name) for name in path]


def _normalize_number(text: str) -> str:
    """Return the number with a decimal point and without groups. Raises InvalidCell."""
    if len(text) > _MAX_DIGITS:
        raise InvalidCell("is too large")
    if _PLAIN_NUMBER.fullmatch(text):
        return text.replace(",", ".")
    if not _GROUPED_NUMBER.fullmatch(text):
        raise InvalidCell("must be a decimal number such as 19,99 or 19.99")
    separators = [character for character in text if character in ".,"]
    group = separators[0]
    decimal = separators[-1] if separators[-1] != group else ""
    plain = text.replace(group, "")
    return plain.replace(decimal, ".") if decimal else plain


def _parse_date(text: str) -> tuple[datetime, bool]:
    """Return the time in UTC, and whether it means the whole day. Raises InvalidCell."""
    found = _DATE.fullmatch(text)
    if not found:
        raise InvalidCell("must be a date such as 2026-11-27")
    year, month, day = (
        int(found[a] or found[b]) for a, b in (["year", "y"], ("month", "m"), ("day", "d"))
    )
    time, seconds = found["time"] or "0:00", found["seconds"] or ":00"
    hour, minute = (int(part) for part in time.split(":"))
    try:
        moment = datetime(year, month, day, hour, minute, int(seconds[1:]), tzinfo=UTC)
    except ValueError:
        raise InvalidCell("must be a date such as 2026-11-27") from None
    return moment, not found["time"] or (time, seconds) == _END_OF_DAY
