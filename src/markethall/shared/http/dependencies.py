"""FastAPI dependencies that read the container of the application."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request


def from_container(name: str) -> Callable[[Request], Awaitable[Any]]:
    """Return a dependency that resolves a provider of this application's container.

    Several applications may share a process, so the container is found through the request.
    """

    async def resolve(request: Request) -> Any:
        return getattr(request.app.state.container, name)()

    return resolve
