"""The guard of the in-process call: the same laws as over the wire, checked on every call."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from markethall.shared.db import IN_TRANSACTION
from markethall.shared.errors import CalledInTransaction

T = TypeVar("T")


class _Guarded:
    def __init__(self, service: object) -> None:
        self._service = service

    def __getattr__(self, name: str) -> Any:
        return _outside_transaction(getattr(self._service, name))


def guarded(service: T) -> T:
    """The service, refusing any call that is made inside an open transaction (law 5).

    Over the wire such a call would hold locks while it waits for a neighbour; so it must not
    work in process either. Nor while reading: who holds a connection and waits for a neighbour
    that needs one of the same pool may wait for ever, once all do.
    """
    return cast("T", _Guarded(service))


def _outside_transaction(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(*arguments: Any, **named: Any) -> Any:
        if IN_TRANSACTION.get():
            raise CalledInTransaction(f"{method.__qualname__} was called with a connection in hand")
        return await method(*arguments, **named)

    return call
