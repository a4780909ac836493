"""Typed client of the Markethall API."""

from markethall_client.async_client import AsyncMarkethall
from markethall_client.client import Markethall
from markethall_client.errors import MarkethallError, ProblemError, UnexpectedResponseError
from markethall_client.generated.types import File
from markethall_client.idempotency import IDEMPOTENCY_KEY_HEADER, new_key
from markethall_client.operation import Operation
from markethall_client.pages import Page
from markethall_client.retries import Retries
from markethall_client.tokens import MemoryTokenStorage, Tokens, TokenStorage

__version__ = "0.1.0"

__all__ = [
    "IDEMPOTENCY_KEY_HEADER",
    "AsyncMarkethall",
    "File",
    "Markethall",
    "MarkethallError",
    "MemoryTokenStorage",
    "Operation",
    "Page",
    "ProblemError",
    "Retries",
    "TokenStorage",
    "Tokens",
    "UnexpectedResponseError",
    "new_key",
]
