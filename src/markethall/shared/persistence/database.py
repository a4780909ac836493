"""The protocol of a context's database. `S_co` is its store, `R_co` the store for reads only."""

from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Final, Protocol, TypeVar

R_co = TypeVar("R_co", covariant=True)
S_co = TypeVar("S_co", covariant=True)
# Transactions and read sessions of every storage set this variable; otherwise it is empty. While it
# is set, the call guard rejects calls to another context, because no other request could use the
# connection during such a call.
HOLDS_CONNECTION: Final[ContextVar[str]] = ContextVar("holds_connection", default="")


class ReadDatabase(Protocol[R_co]):
    def read_session(self) -> AbstractAsyncContextManager[R_co]:
        """Open the read store, which uses no transaction and no locks. Raises Unavailable."""


class SnapshotDatabase(Protocol[R_co]):
    def snapshot(self) -> AbstractAsyncContextManager[R_co]:
        """Open a read store: all its reads see the same commits, and it locks no rows.

        Raises Unavailable.
        """


class Database(ReadDatabase[R_co], Protocol[R_co, S_co]):
    def transaction(self) -> AbstractAsyncContextManager[S_co]:
        """Commit when the block ends; roll back when it raises. Raises Unavailable."""

    def autocommit(self) -> AbstractAsyncContextManager[S_co]:
        """Commit each statement by itself, without a transaction around the block.

        Use it for a block with one statement: this saves the round trips of BEGIN and COMMIT.
        Raises Unavailable.
        """

    @property
    def write_count(self) -> int:
        """The number of blocks of this process that may have written."""
