"""Common passwords of at least eight characters, from published lists; see NOTICE."""

import gzip
from functools import cache
from pathlib import Path


@cache
def common_passwords() -> frozenset[str]:
    """Return the passwords in lower case; the result takes two megabytes of memory."""
    data = Path(__file__).with_name("common_passwords.txt.gz").read_bytes()
    return frozenset(gzip.decompress(data).decode().split())
