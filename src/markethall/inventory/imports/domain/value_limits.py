"""Cut values from other shop systems to the limits of product fields."""

import re
from collections.abc import Iterable
from typing import Final

from markethall.inventory.catalogue.contract.fields import (
    MAX_CATEGORY_DEPTH,
    MAX_CATEGORY_LENGTH,
    MAX_LABEL_LENGTH,
    join_path,
    split_path,
)
from markethall.inventory.catalogue.contract.products import MAX_IMAGE_URL_LENGTH

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
