"""Normalizes the values that differ between two runs of the scenario.

Ids are numbered in order of appearance; times, signatures, hashes and random tokens are masked.
Everything else stays unchanged.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

_HEX: Final = "[0-9a-f]"
_DASHED: Final = f"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"
# The first matching pattern is used. The matched text is replaced by the name of the pattern in
# angle brackets; an id is replaced by its number.
_PATTERNS: Final = {
    # the span id is masked; the trace id must be equal in both runs
    "span": rf"(?<=\b00-{_HEX}{{32}}-){_HEX}{{16}}(?=-{_HEX}{{2}}\b)",
    "trace": rf"(?<=\b00-){_HEX}{{32}}(?=-)",
    "id": rf"(?<!{_HEX})(?:{_DASHED}|{_HEX}{{32}})(?!{_HEX})",
    "time": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)",
    "unix": r'(?<="created": )\d{10}\b',
    "jwt": r"eyJ[\w-]+\.[\w-]+\.[\w-]+",
    "bcrypt": r"\$2b\$\d\d\$[./A-Za-z0-9]{53}",
    "cursor": r"(?<=cursor=)[\w-]{40,}",
    "hash": rf"(?<!{_HEX})(?:{_HEX}{{64}}|(?<=[-\"]){_HEX}{{12}}(?=\"))(?!{_HEX})",
}
_PATTERN: Final = re.compile(
    "|".join(f"(?P<{name}>{pattern})" for name, pattern in _PATTERNS.items())
)
_UNMASKED: Final = {"trace"}
# members of JSON objects with random values that none of the patterns matches
_MASKED_MEMBERS: Final = {"access_token", "refresh_token", "next_cursor", "kid", "x"}
# the hash chain of a posting depends on the random id of its payment
_CHAIN_MEMBERS: Final = {"chain", "chains", "sequence"}


class LogNormalizer:
    """Normalizes the texts of one run; it remembers the number of each id."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def normalize(self, text: str) -> str:
        """Replace ids and random values. A new id gets the next number."""
        return _PATTERN.sub(lambda found: self._replacement(found, new=True), text)

    def normalize_known(self, text: str) -> str:
        """Normalize for sorting. New ids get no number, so the result is equal in every run."""
        return _PATTERN.sub(lambda found: self._replacement(found, new=False), text)

    def normalize_sorted(self, texts: Iterable[str]) -> list[str]:
        """Sort and normalize lines that have no order; new ids do not influence the sorting."""
        return [self.normalize(text) for text in sorted(texts, key=self.normalize_known)]

    def _replacement(self, found: re.Match[str], *, new: bool) -> str:
        kind, text = str(found.lastgroup), found[0]
        if kind in _UNMASKED:
            return text
        if kind != "id":
            return f"<{kind}>"
        key = text.replace("-", "")
        if new:
            self._names.setdefault(key, f"id-{len(self._names) + 1}")
        return self._names.get(key, "id-?")


def leaves(value: Any, pointer: str = "") -> Iterator[str]:
    """Yield a line with JSON pointer and value for each scalar of a JSON document.

    An empty object or array is a line too. Members of objects are sorted by name.
    """
    match value:
        case dict() if value:
            for name, item in sorted(value.items()):
                yield from leaves(_mask(name, item), f"{pointer}/{name}")
        case list() if value:
            for at, item in enumerate(value):
                yield from leaves(item, f"{pointer}/{at}")
        case _:
            yield f"{pointer}: {json.dumps(value, ensure_ascii=False)}"


def _mask(name: str, item: Any) -> Any:
    if name in _CHAIN_MEMBERS and item is not None:
        return "<chain>"
    return "<token>" if name in _MASKED_MEMBERS and item else item
