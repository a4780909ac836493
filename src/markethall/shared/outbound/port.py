"""The port for requests to URLs from users or files, such as URLs of images and webhooks."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

WEB_PORTS: Final = frozenset({80, 443})


class OutboundProblem(StrEnum):
    """The reason why a request was not sent, or has no result."""

    INVALID_URL = "invalid_url"
    FORBIDDEN_ADDRESS = "forbidden_address"
    UNKNOWN_HOST = "unknown_host"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    TOO_LARGE = "too_large"
    CONTENT_TYPE = "content_type"
    CONTENT_ENCODING = "content_encoding"


class OutboundFailed(Exception):
    """The request has no result. The values of `problem` are stable.

    The message contains no address of the internal network, so it may be shown to the user who gave
    the URL.
    """

    def __init__(self, problem: OutboundProblem) -> None:
        super().__init__(problem.value)
        self.problem = problem


@dataclass(frozen=True)
class OutboundLimits:
    """Limits of one request with all its redirects.

    `content_types` are the accepted media types of a response, in lower case; empty accepts all.
    `max_redirects` applies to GET only: other methods follow no redirect.
    """

    max_bytes: int = 1024 * 1024
    timeout_seconds: float = 10
    content_types: frozenset[str] = frozenset()
    max_redirects: int = 0
    schemes: frozenset[str] = frozenset({"https"})
    ports: frozenset[int] = WEB_PORTS


@dataclass(frozen=True)
class OutboundResponse:
    """A complete response. `url` is the URL after redirects. Header names are in lower case."""

    status: int
    url: str
    headers: Mapping[str, str]
    content: bytes


class OutboundHttp(Protocol):
    """Sends requests to public addresses only."""

    async def send(
        self,
        method: str,
        url: str,
        limits: OutboundLimits,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
    ) -> OutboundResponse:
        """Send one request and return the response with any status. Raises OutboundFailed.

        After a redirect to another origin, `headers` are not sent, because they may contain
        credentials.
        """
