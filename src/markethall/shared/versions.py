"""Versions of things: the tags that tell them, and what a change asks of them (RFC 9110)."""

import re
from collections.abc import Set as AbstractSet
from hashlib import sha256
from typing import Final

from markethall.shared.errors import PreconditionFailed

# what whoever changes a thing has seen of it: one of these; None takes it as it is
Seen = AbstractSet[int] | None

# as many digits as every INTEGER column holds
_OURS: Final = re.compile(r'"v(0|[1-9][0-9]{0,8})(?:-[0-9a-f]{12})?"')
# section 8.8.3; nothing is tried twice, so that a long header takes no longer than it is long
_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*+"'
_TAGS: Final = re.compile(_TAG)
_LIST: Final = re.compile(rf"[ \t,]*+(?:{_TAG}[ \t]*+(?:,[ \t,]*+|\Z))*+")


def etag(version: int, digest: str = "") -> str:
    """A strong entity tag. Only the version counts for If-Match; the digest is for caches."""
    return f'"v{version}-{digest}"' if digest else f'"v{version}"'


def digest(body: bytes | memoryview) -> str:
    """Twelve letters that name these very bytes."""
    return sha256(body).hexdigest()[:12]


def seen_by(if_match: str) -> Seen:
    """What If-Match asks for, by section 13.1.1: `*`, or one of the tags of a list.

    A weak tag matches nothing. Raises PreconditionFailed where no tag can match.
    """
    if if_match.strip(" \t") == "*":
        return None
    tags = _TAGS.findall(if_match) if _LIST.fullmatch(if_match) else []
    versions = frozenset(int(ours[1]) for tag in tags if (ours := _OURS.fullmatch(tag)))
    if not versions:
        raise PreconditionFailed("If-Match holds no entity tag of this resource.")
    return versions


def check_seen(seen: Seen, version: int) -> None:
    """Raises PreconditionFailed when the thing has changed since."""
    if seen is not None and version not in seen:
        raise PreconditionFailed(etag=etag(version))
