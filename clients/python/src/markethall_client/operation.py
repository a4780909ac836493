"""A request of one operation, built by the generated functions and sent by a client."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

import httpx2

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Operation(Generic[T_co]):
    """A request, and the function that parses its successful response.

    `body` has the keyword arguments of `httpx2.Client.build_request` for the request body.
    """

    method: str
    path: str
    params: Mapping[str, Any]
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    parse: Callable[[httpx2.Response], T_co]

    def with_cursor(self, cursor: str) -> Self:
        """Return the operation that continues a list at the cursor."""
        return replace(self, params={**self.params, "cursor": cursor})
