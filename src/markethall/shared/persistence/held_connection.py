"""The marker of a task that holds a database connection."""

from contextvars import ContextVar
from typing import Final

# Set in transactions and read sessions, on every backend. The call guard of the contexts reads it:
# no other context may be called meanwhile.
HOLDS_CONNECTION: Final[ContextVar[str]] = ContextVar("holds_connection", default="")
