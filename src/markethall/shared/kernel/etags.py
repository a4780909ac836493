"""Entity tags and expected versions for optimistic concurrency (RFC 9110)."""

import re
from collections.abc import Set as AbstractSet
from hashlib import sha256
from typing import Final

from markethall.shared.kernel.errors import PreconditionFailed

# the versions that a change accepts; None accepts every version
ExpectedVersions = AbstractSet[int] | None

# at most nine digits, because every such number fits into an INTEGER column
_VERSION_TAG: Final = re.compile(r'"v(0|[1-9][0-9]{0,8})(?:-[0-9a-f]{12})?"')
# RFC 9110, section 8.8.3. Possessive quantifiers (`*+`) avoid slow backtracking in a long header.
_ENTITY_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*+"'
_ENTITY_TAGS: Final = re.compile(_ENTITY_TAG)
_ENTITY_TAG_LIST: Final = re.compile(rf"[ \t,]*+(?:{_ENTITY_TAG}[ \t]*+(?:,[ \t,]*+|\Z))*+")


def etag(version: int, digest: str = "") -> str:
    """Return a strong entity tag.

    If-Match compares only the version. The digest makes the tags of two representations of the same
    version different.
    """
    return f'"v{version}-{digest}"' if digest else f'"v{version}"'


def content_digest(body: bytes | memoryview) -> str:
    """Return the first twelve hexadecimal digits of the SHA-256 of the body."""
    return sha256(body).hexdigest()[:12]


def parse_if_match(if_match: str) -> ExpectedVersions:
    """Return the versions that If-Match accepts (RFC 9110, section 13.1.1); None for `*`.

    Weak tags are ignored. Raises PreconditionFailed if no tag has the form that `etag` writes.
    """
    if if_match.strip(" \t") == "*":
        return None
    tags = _ENTITY_TAGS.findall(if_match) if _ENTITY_TAG_LIST.fullmatch(if_match) else []
    versions = frozenset(int(match[1]) for tag in tags if (match := _VERSION_TAG.fullmatch(tag)))
    if not versions:
        raise PreconditionFailed("If-Match holds no entity tag of this resource.")
    return versions


def check_expected_version(expected_versions: ExpectedVersions, version: int) -> None:
    """Raise PreconditionFailed if the version is not among the expected versions."""
    if expected_versions is not None and version not in expected_versions:
        raise PreconditionFailed(etag=etag(version))
