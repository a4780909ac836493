"""Passwords from lists of common ones, those of at least eight characters; see NOTICE."""

import gzip
from functools import cache
from pathlib import Path


@cache
def common_passwords() -> frozenset[str]:
    """Return the passwords in lower case. They take two megabytes, and are read once."""
    data = Path(__file__).with_name("common_passwords.txt.gz").read_bytes()
    return frozenset(gzip.decompress(data).decode().split())
