"""A cached read: a function of a few plain arguments, and what it answers, as bytes."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Generic, ParamSpec
from uuid import UUID

from markethall.shared.cache.ports import Cache

P = ParamSpec("P")


class Cached(Generic[P]):
    """Calls `load` only when the cache has no answer to these arguments.

    `read = Cached(cache, space="inventory.product", ttl=60, load=load)`, `await read(product_id)`,
    `await read.forget(product_id)`. Arguments are UUID, int, str, bool, None or tuples of these,
    and nothing else (TypeError); `1`, `"1"` and `True` are three different ones. All callers share
    an answer, so what it depends on must be among them. In Redis an answer outlives the process:
    when its form changes, so must the name of the space.
    """

    def __init__(
        self, cache: Cache, *, space: str, ttl: float, load: Callable[P, Awaitable[bytes | None]]
    ) -> None:
        self._cache = cache
        self._space = space
        self._ttl = ttl
        self._load = load
        self._signature = inspect.signature(load)
        self._arity = len(self._signature.parameters)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> bytes | None:
        key = self._key(*args, **kwargs)
        return await self._cache.fetch(
            self._space, key, self._ttl, lambda: self._load(*args, **kwargs)
        )

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> bytes | None:
        """The answer if it can be had without waiting; None says nothing."""
        return self._cache.peek(self._space, self._key(*args, **kwargs))

    async def forget(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the answer to these arguments."""
        await self._cache.forget(self._space, [self._key(*args, **kwargs)])

    async def forget_all(self) -> None:
        """Forget the answers to all arguments."""
        await self._cache.forget_space(self._space)

    def _key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        if kwargs or len(args) != self._arity:
            # named or left out: the same arguments must make the same key
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return key_of(bound.args + tuple(bound.kwargs.values()))
        return key_of(args)


def key_of(arguments: tuple[object, ...]) -> str:
    """One text per list of arguments: every part says its type, and where it ends."""
    return "".join([_part(argument) for argument in arguments])


def _part(value: object) -> str:
    write = _WRITERS.get(type(value))
    if write is not None:
        return write(value)
    if isinstance(value, UUID):  # asyncpg has its own
        return f"u{value.hex}"
    raise TypeError(f"a cache key is not made of {type(value).__name__}")


# By exact type: bool is an int and an enum may be a str, and they must not be taken for them.
_WRITERS: dict[type, Callable[[Any], str]] = {
    UUID: lambda value: f"u{value.hex}",
    int: lambda value: f"i{value};",
    str: lambda value: f"s{len(value)}:{value}",
    bool: lambda value: "t" if value else "f",
    type(None): lambda _: "n",
    tuple: lambda value: f"({key_of(value)})",
}
