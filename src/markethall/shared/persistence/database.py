"""The database of a context as its services see it; `S` and `R` are its store protocols."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

R_co = TypeVar("R_co", covariant=True)
S_co = TypeVar("S_co", covariant=True)


class ReadDatabase(Protocol[R_co]):
    def read_session(self) -> AbstractAsyncContextManager[R_co]:
        """Reads without a transaction and without locks. Raises Unavailable."""


class Database(ReadDatabase[R_co], Protocol[R_co, S_co]):
    def transaction(self) -> AbstractAsyncContextManager[S_co]:
        """Commit when the block ends, roll back when it raises. Raises Unavailable."""
