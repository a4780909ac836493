"""Errors that a call raises, beside those of `httpx2`."""

from __future__ import annotations

from json import JSONDecodeError

import httpx2

from markethall_client.generated.models import Problem


class MarkethallError(Exception):
    """An error response of the shop, or of a proxy before it."""

    def __init__(self, message: str, response: httpx2.Response) -> None:
        super().__init__(message)
        self.response = response

    @property
    def status(self) -> int:
        """Status of the HTTP response."""
        return self.response.status_code


class ProblemError(MarkethallError):
    """A problem document (RFC 9457) with a stable `code`, such as `inventory.out_of_stock`."""

    def __init__(self, problem: Problem, response: httpx2.Response) -> None:
        super().__init__(f"{problem.code}: {problem.detail}", response)
        self.problem = problem

    @property
    def code(self) -> str:
        """Stable code of the problem."""
        return self.problem.code


class UnexpectedResponseError(MarkethallError):
    """A response that is neither successful nor a problem document."""


def error_of(response: httpx2.Response) -> MarkethallError:
    """Return the error for a response that is not successful. Its body must have been read."""
    try:
        return ProblemError(Problem.from_dict(response.json()), response)
    except (JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        message = f"unexpected response with status {response.status_code}"
        return UnexpectedResponseError(message, response)


def checked(response: httpx2.Response) -> httpx2.Response:
    """Return the response if it is successful. Raises ProblemError, UnexpectedResponseError."""
    if response.is_success:
        return response
    raise error_of(response)
