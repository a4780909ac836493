"""The parts of a context that its manifest loads when a process serves or calls the context."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import APIRouter

from markethall.shared.composition.container import ContextContainer
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard

C = TypeVar("C")
K = TypeVar("K", bound=ContextContainer[Any])


@dataclass(frozen=True)
class InternalApi(Generic[K, C]):
    """The contract `C` that other contexts call."""

    # the endpoints, mounted where a caller is served by another process
    router: APIRouter
    # the implementation, in the container of the context
    local: Callable[[K], C]
    # builds the client that calls `router` from another process
    remote: Callable[[RpcClient], C]
    # the wrapper that applies the rules of a call, the same for both
    guarded: Callable[[C, CallGuard], C]


@dataclass(frozen=True)
class ContextParts(Generic[K]):
    # takes the settings, the tools, and a client for each context that it calls
    container: Callable[..., K]
    router: APIRouter
    internal_api: InternalApi[K, Any] | None = None
