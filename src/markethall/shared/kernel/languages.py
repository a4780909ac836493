"""Language tags: Accept-Language (RFC 9110) and the choice of a language by lookup (RFC 4647)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

# a language tag of BCP 47 (RFC 5646) with its usual letter case: language, script, region, variants
LANGUAGE_TAG: Final = r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?(-[a-z0-9]{5,8})*"
# in characters; the rest of a longer header is ignored; browsers send less than 200
MAX_HEADER_LENGTH: Final = 1000
MAX_RANGES: Final = 20
_MAX_CACHED_HEADERS: Final = 256
# a language range with its weight, which has at most three decimals (RFC 9110, section 12.4.2)
_RANGE: Final = re.compile(
    r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)\s*(?:;\s*[Qq]=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?",
    re.ASCII,
)


def parse_accept_language(header: str) -> Sequence[str]:
    """Return the language ranges of the header, the greatest weight first.

    Ranges with the weight 0, the range `*`, and malformed ones are left out. Only the first 20
    ranges in the first 1,000 characters count.
    """
    return _parse(header[:MAX_HEADER_LENGTH])


@lru_cache(_MAX_CACHED_HEADERS)
def _parse(header: str) -> Sequence[str]:
    found = [_RANGE.fullmatch(part) for part in header.split(",")[:MAX_RANGES]]
    weighted = [(float(match[2] or 1), match[1]) for match in found if match]
    # the sort is stable: of ranges with the same weight, the first in the header comes first
    weighted.sort(key=lambda pair: -pair[0])
    return tuple(tag for weight, tag in weighted if weight > 0)


def lookup_language(ranges: Iterable[str], available: Mapping[str, str]) -> str | None:
    """Return the best available language, or None if no range finds one (RFC 4647, section 3.4).

    Subtags are removed from the end of a range until a tag is available: de-AT finds de.
    `available` maps each tag in lower case to the tag.
    """
    for wanted in ranges:
        tag = wanted.lower()
        while tag:
            if tag in available:
                return available[tag]
            tag = tag.rpartition("-")[0]
            if tag[-2:-1] == "-":
                # a single letter introduces the subtag that was removed, so it is removed too
                tag = tag[:-2]
    return None
