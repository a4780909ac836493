"""The statement timeout of one request, if it is shorter than the timeout of the database.

It is a context variable, so that the code between the HTTP layer and the database need not pass it.
"""

from contextvars import ContextVar
from typing import Final

# seconds; None: only the general timeout of the database applies
STATEMENT_TIMEOUT: Final[ContextVar[float | None]] = ContextVar("statement_timeout", default=None)
