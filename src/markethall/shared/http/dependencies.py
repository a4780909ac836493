"""FastAPI dependencies that read the containers of the application."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from fastapi import Request

C = TypeVar("C")
T = TypeVar("T")


class FromContext(Generic[C]):
    """Makes FastAPI dependencies that return the services of one context.

    `C` is a protocol with the services that the routes use; the context's container implements it.
    The container is read from the application of the request, because a process may have several
    applications.
    """

    def __init__(self, context: str) -> None:
        self._context = context

    def __call__(self, select: Callable[[C], T]) -> Callable[[Request], Awaitable[T]]:
        async def resolve(request: Request) -> T:
            container: C = request.app.state.contexts[self._context]
            return select(container)

        return resolve
