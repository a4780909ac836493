"""Find card numbers (primary account numbers) in texts and in JSON values.

A card number has 14 to 19 digits, begins with the range of an issuer that has numbers of this
length, and has a valid check digit (Luhn, ISO/IEC 7812-1). Spaces, dashes or dots may separate
groups of its digits. Digits of other scripts count as digits.

Numbers of 13 digits do not count as card numbers: Visa has stopped issuing them, and one EAN-13 in
a hundred would look like one. UUIDs, IBANs, hexadecimal ids and fractions of decimal numbers are
not card numbers either.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

MIN_DIGITS: Final = 14
MAX_DIGITS: Final = 19

# range of an issuer -> the lengths of its numbers
_ISSUERS: Final[tuple[tuple[str, frozenset[int]], ...]] = (
    (r"4", frozenset({16, 19})),  # Visa
    (r"5[1-5]", frozenset({16})),  # Mastercard
    (r"222[1-9]|22[3-9]|2[3-6]|27[01]|2720", frozenset({16})),  # Mastercard
    (r"3[47]", frozenset({15})),  # American Express
    (r"30[0-5]|3095|36|3[89]", frozenset({14, 16, 17, 18, 19})),  # Diners Club
    (r"6011|64[4-9]|65", frozenset({16, 17, 18, 19})),  # Discover
    (r"62", frozenset({16, 17, 18, 19})),  # UnionPay
    (r"352[89]|35[3-8]", frozenset({16, 17, 18, 19})),  # JCB
    (r"5018|5020|5038|5893|6304|6759|676[1-3]", frozenset({16, 17, 18, 19})),  # Maestro
    (r"220[0-4]", frozenset({16, 17, 18, 19})),  # Mir
    (r"60|81|82|508", frozenset({16})),  # RuPay
)
_ISSUER_OF: Final = {
    length: re.compile(
        "|".join(prefix for prefix, lengths in _ISSUERS if length in lengths).encode()
    )
    for length in range(MIN_DIGITS, MAX_DIGITS + 1)
    if any(length in lengths for _, lengths in _ISSUERS)
}
# The text is searched as ASCII bytes: digits of other scripts become ASCII digits; no-break and
# thin spaces, hyphens, dashes and the minus sign become a space; other characters become "?".
_TRANSLATED: Final = re.compile(r"[^\x00-\x7f](?<=[\d\u00a0\u2007\u2009\u202f\u2010-\u2015\u2212])")
# digits and separators, long enough for a card number
_RUN: Final = re.compile(rb"[0-9][0-9 .-]{13,}")
_GAP: Final = rb"[ .-]{0,2}"
# the groups in which people and cards write the digits; separators are optional, and every length
# of a card number fits a layout
_LAYOUTS: Final = (
    rb"\d{4}~\d{4}~\d{4}~\d{4}",
    rb"\d{4}~\d{4}~\d{4}~\d{4}~\d{1,3}",
    rb"\d{4}~\d{6}~\d{4,5}",
    rb"\d{6}~\d{8,13}",
)
# A match has one group for each layout; the group is None if the layout does not fit. The
# lookarounds require the first digit of an issuer, and skip the digits after a decimal point.
_CANDIDATE: Final = re.compile(
    b"".join(
        [
            rb"(?<!\d)(?<!\d\.)(?=[2-68]\d{3}~\d{2})",
            *(rb"(?=(" + layout + rb")(?!\d)|)" for layout in _LAYOUTS),
        ]
    ).replace(b"~", _GAP)
)
# limits the work on one text: further candidates are not checked
_MAX_CANDIDATES: Final = 5000
_UUID: Final = re.compile(
    rb"(?<![0-9a-z])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-z])", re.IGNORECASE
)
_IBAN: Final = re.compile(rb"(?<![0-9A-Za-z])[A-Z]{2}\d\d(?: ?[A-Z0-9]){11,30}(?![0-9A-Za-z])")
_HEX_ID: Final = re.compile(
    rb"(?<![0-9a-z])(?=[0-9]*[a-f])[0-9a-f]{24,}(?![0-9a-z])", re.IGNORECASE
)
_MIN_IBAN_LENGTH: Final = 15

# digit -> the sum of the digits of its double
_DOUBLED: Final = bytes.maketrans(b"0123456789", b"0246813579")

# For the first, fast check: digits become "0", other bytes "x". Separators and bytes of non-ASCII
# characters are removed, so that groups of digits become one. A plus is a space in a query.
_TO_SHAPE: Final = bytes(ord("0") if byte in b"0123456789" else ord("x") for byte in range(256))
_REMOVED: Final = b" -.+" + bytes(range(128, 256))
_MIN_RUN: Final = b"0" * MIN_DIGITS
_ASCII: Final = bytes(range(128))
_DIGIT: Final = re.compile(r"\d")


def may_contain_card_number(text: str | bytes) -> bool:
    """Tell whether a text has enough digits in a row for a card number.

    The check takes about a microsecond for a kilobyte. If it returns False, the text has no card
    number.
    """
    if len(text) < MIN_DIGITS:
        return False
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    if _MIN_RUN in data.translate(_TO_SHAPE, _REMOVED):
        return True
    # most texts have few characters that are not ASCII; only these can be digits of other scripts
    return not data.isascii() and bool(
        _DIGIT.search(data.translate(None, _ASCII).decode("utf-8", "replace"))
    )


def contains_card_number(text: str, budget: Iterator[int] | None = None) -> bool:
    """Tell whether a text contains a card number. `budget` is that of `card_number_spans`."""
    return may_contain_card_number(text) and next(card_number_spans(text, budget), None) is not None


def card_number_spans(text: str, budget: Iterator[int] | None = None) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each card number in a text. They may overlap.

    Each candidate takes one item of `budget`; texts that are searched together share one.
    """
    data = _to_ascii(text)
    for match, _ in zip(_candidates(data), budget or _new_budget(), strict=False):
        for index, candidate in enumerate(match.groups(), start=1):
            if candidate and _is_card_number(candidate) and not _is_in_id(data, *match.span(index)):
                yield match.span(index)


def redact_card_numbers(text: str) -> str:
    """Replace every card number in a text by `***`."""
    if not may_contain_card_number(text):
        return text
    end, parts = 0, []
    for start, stop in card_number_spans(text):
        if start >= end:
            parts += [text[end:start], "***"]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def is_card_number_value(number: float) -> bool:
    """Tell whether a JSON number is a card number."""
    return 10 ** (MIN_DIGITS - 1) <= abs(number) < 10**MAX_DIGITS and _is_card_number(
        b"%d" % abs(number)
    )


def find_card_number(value: Any, unchecked_names: frozenset[str] = frozenset()) -> str | None:
    """Return the JSON pointer (RFC 6901) of the first card number in a JSON value, or None.

    A name that contains a card number is not in the pointer; the pointer is that of its object.
    Members of the outermost object with a name of `unchecked_names` are not checked.
    """
    if isinstance(value, dict) and unchecked_names:
        value = {name: item for name, item in value.items() if name not in unchecked_names}
    pending: list[tuple[str, Any]] = [("", value)]
    budget = _new_budget()
    while pending:
        pointer, item = pending.pop()
        if _is_or_names_card_number(item, budget):
            return pointer
        pending += _children(pointer, item)
    return None


def redact_card_numbers_in(value: Any) -> Any:
    """Return the JSON value with card numbers replaced: by `***` in a text, by 0 for a number."""
    if isinstance(value, str):
        return redact_card_numbers(value)
    if isinstance(value, list):
        return [redact_card_numbers_in(item) for item in value]
    if isinstance(value, dict):
        return {
            redact_card_numbers(name): redact_card_numbers_in(item) for name, item in value.items()
        }
    return 0 if isinstance(value, int | float) and is_card_number_value(value) else value


def _new_budget() -> Iterator[int]:
    return iter(range(_MAX_CANDIDATES))


def _is_or_names_card_number(item: Any, budget: Iterator[int]) -> bool:
    if isinstance(item, str):
        return contains_card_number(item, budget)
    if isinstance(item, dict):
        return any(contains_card_number(name, budget) for name in item)
    return isinstance(item, int | float) and is_card_number_value(item)


def _children(pointer: str, item: Any) -> list[tuple[str, Any]]:
    if isinstance(item, dict):
        return [(f"{pointer}/{_escape(name)}", child) for name, child in item.items()]
    if isinstance(item, list):
        return [(f"{pointer}/{index}", child) for index, child in enumerate(item)]
    return []


def _escape(name: str) -> str:
    text = name[:100].replace("~", "~0").replace("/", "~1")
    return text.encode("utf-8", "replace").decode()


def _to_ascii(text: str) -> bytes:
    """Return the text in ASCII, with one byte for each character."""
    if text.isascii():
        return text.encode()
    # each distinct character once, because a text may have a million digits of other scripts
    signs = _TRANSLATED.findall("".join(set(text)))
    table = {ord(sign): str(int(sign)) if sign.isdecimal() else " " for sign in signs}
    return text.translate(table).encode("ascii", "replace")


def _candidates(data: bytes) -> Iterator[re.Match[bytes]]:
    for run in _RUN.finditer(data):
        yield from _CANDIDATE.finditer(data, *run.span())


def _is_card_number(candidate: bytes) -> bool:
    """Tell whether ASCII digits and separators are a card number."""
    digits = candidate.translate(None, b" .-")
    issuer = _ISSUER_OF.get(len(digits))
    return issuer is not None and issuer.match(digits) is not None and _has_check_digit(digits)


def _has_check_digit(digits: bytes) -> bool:
    """Return whether the last digit is the check digit of the others (Luhn)."""
    # the value of a byte is its digit plus 48
    doubled = digits[-2::-2].translate(_DOUBLED)
    return (sum(digits[-1::-2]) + sum(doubled) - 48 * len(digits)) % 10 == 0


def _is_in_id(data: bytes, start: int, end: int) -> bool:
    """Tell whether the digits are a part of a UUID, a hexadecimal id or an IBAN."""
    # no such id is longer than 128 characters
    near_start, near_end = max(0, start - 128), end + 128
    return any(
        found.start() <= start and end <= found.end() and is_id(found[0])
        for pattern, is_id in _IDS
        for found in pattern.finditer(data, near_start, near_end)
    )


def _is_iban(text: bytes) -> bool:
    """Check the check digits of an IBAN (ISO 13616)."""
    compact = text.replace(b" ", b"").decode()
    if len(compact) < _MIN_IBAN_LENGTH:
        return False
    return int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])) % 97 == 1


_IDS: Final[tuple[tuple[re.Pattern[bytes], Callable[[bytes], bool]], ...]] = (
    (_UUID, lambda _: True),
    (_HEX_ID, lambda _: True),
    (_IBAN, _is_iban),
)
