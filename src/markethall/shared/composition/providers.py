"""Typed functions to declare providers: mypy checks the injected objects against the constructor.

The provider classes of dependency-injector accept any arguments.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

from dependency_injector.providers import Delegate, Provider, Selector, Singleton

from markethall.shared.composition.settings import ContextSettings

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
M = TypeVar("M")
S = TypeVar("S")
SettingsT = TypeVar("SettingsT", bound=ContextSettings)


@overload
def singleton(build: Callable[[], T], /) -> Singleton[T]: ...
@overload
def singleton(build: Callable[[A], T], a: Provider[A], /) -> Singleton[T]: ...
@overload
def singleton(build: Callable[[A, B], T], a: Provider[A], b: Provider[B], /) -> Singleton[T]: ...
@overload
def singleton(
    build: Callable[[A, B, C], T], a: Provider[A], b: Provider[B], c: Provider[C], /
) -> Singleton[T]: ...
@overload
def singleton(
    build: Callable[[A, B, C, D], T],
    a: Provider[A],
    b: Provider[B],
    c: Provider[C],
    d: Provider[D],
    /,
) -> Singleton[T]: ...
@overload
def singleton(
    build: Callable[[A, B, C, D, E], T],
    a: Provider[A],
    b: Provider[B],
    c: Provider[C],
    d: Provider[D],
    e: Provider[E],
    /,
) -> Singleton[T]: ...
def singleton(build: Callable[..., Any], /, *injected: Provider[Any]) -> Singleton[Any]:
    """Provide one object for each container, built when it is first used.

    `build` is a class or a function, and must not be a coroutine function.
    """
    return Singleton(build, *injected)


def deferred(provider: Provider[T]) -> Provider[Callable[[], T]]:
    """Inject a function that builds the object, for an object that may not be needed."""
    return cast("Provider[Callable[[], T]]", Delegate(provider))


def by_storage(
    settings: Provider[SettingsT], *, memory: Provider[M], sql: Provider[S]
) -> Selector[M | S]:
    """Provide the implementation for the storage that the settings name."""
    return Selector(singleton(_storage, settings), memory=memory, sql=sql)


def _storage(settings: ContextSettings) -> str:
    return settings.storage
