"""Stores the files of images in a bucket of S3, or of a compatible service."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

_CONNECT_TIMEOUT: Final = timedelta(seconds=2)
_TIMEOUT: Final = timedelta(seconds=10)
_RETRIES: Final[Mapping[str, Any]] = {"max_retries": 2, "retry_timeout": timedelta(seconds=8)}
