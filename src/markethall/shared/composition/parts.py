"""The parts of a context. They are imported only by processes that serve or call the context."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import APIRouter

from markethall.shared.composition.container import ContextContainer
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard
from markethall.shared.rpc.server import InternalRoutes

C = TypeVar("C")
K = TypeVar("K", bound=ContextContainer)


@dataclass(frozen=True)
class InternalApi(Generic[K, C]):
    """The ways in which other contexts call the contract `C`, in process and over HTTP."""

    # the endpoints; mounted if another process serves a context that calls this one
    routes: InternalRoutes
    # returns the implementation from the container of the context
    local: Callable[[K], C]
    # builds the client that calls `routes` from another process
    remote: Callable[[RpcClient], C]
    # wraps the implementation or the client with the call guard
    guarded: Callable[[C, CallGuard], C]


@dataclass(frozen=True)
class ContextParts(Generic[K]):
    # its arguments: the settings, the tools, and the contract of each context that this one calls
    container: type[K]
    router: APIRouter
    internal_api: InternalApi[K, Any] | None = None
