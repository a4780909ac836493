"""What differs between two runs of the same story, said in a way that does not.

Ids get names in the order in which they appear; times, signatures, hashes and random tokens are
masked. Everything else stays as it is: a difference there is a difference.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

_HEX: Final = "[0-9a-f]"
_DASHED: Final = f"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"
# what is found first wins; the names in <> stand for the text, an id gets a name of its own
_KINDS: Final = {
    # the span changes from hop to hop, the trace must not
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
_ANY: Final = re.compile("|".join(f"(?P<{name}>{what})" for name, what in _KINDS.items()))
_KEPT: Final = {"trace"}
# random texts that have no form of their own
_MASKED: Final = {"access_token", "refresh_token", "next_cursor", "kid", "x"}


class LogNormalizer:
    """The ids of one run, by the names that they have in its log."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def normalize(self, text: str) -> str:
        """A new id gets the next name."""
        return _ANY.sub(lambda found: self._word(found, new=True), text)

    def normalize_known(self, text: str) -> str:
        """The same, but nobody is named: to sort what has no order of its own."""
        return _ANY.sub(lambda found: self._word(found, new=False), text)

    def normalize_sorted(self, texts: Iterable[str]) -> list[str]:
        """Normal, in an order that does not come from ids that nobody has seen yet."""
        return [self.normalize(text) for text in sorted(texts, key=self.normalize_known)]

    def _word(self, found: re.Match[str], *, new: bool) -> str:
        kind, text = str(found.lastgroup), found[0]
        if kind in _KEPT:
            return text
        if kind != "id":
            return f"<{kind}>"
        key = text.replace("-", "")
        if new:
            self._names.setdefault(key, f"id-{len(self._names) + 1}")
        return self._names.get(key, "id-?")


def leaves(value: Any, where: str = "") -> Iterator[str]:
    """A line for each value of a JSON document, by its pointer; members have no order."""
    match value:
        case dict() if value:
            for name, item in sorted(value.items()):
                yield from leaves(
                    "<token>" if name in _MASKED and item else item, f"{where}/{name}"
                )
        case list() if value:
            for at, item in enumerate(value):
                yield from leaves(item, f"{where}/{at}")
        case _:
            yield f"{where}: {json.dumps(value, ensure_ascii=False)}"
