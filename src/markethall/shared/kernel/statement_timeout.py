"""The maximum time of each statement of a read, if the request has a shorter one than the database.

A context variable carries it, because the code between the request and the statement is the same
for all clients.
"""

from contextvars import ContextVar
from typing import Final

# seconds; None: only the general timeout of the database applies
STATEMENT_TIMEOUT: Final[ContextVar[float | None]] = ContextVar("statement_timeout", default=None)
