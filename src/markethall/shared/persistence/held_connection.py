"""A context variable that tells whether a task holds a database connection."""

from contextvars import ContextVar
from typing import Final

# Transactions and read sessions of every storage set this variable; otherwise it is empty. While it
# is set, the call guard rejects calls to another context, because no other request could use the
# connection during such a call.
HOLDS_CONNECTION: Final[ContextVar[str]] = ContextVar("holds_connection", default="")
