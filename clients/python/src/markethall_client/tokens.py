"""Tokens of a session, and where they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import httpx2

from markethall_client.generated.models import GrantType, GuestTokens, TokenForm, TokenPair
from markethall_client.generated.operations import issue_token
from markethall_client.operation import Operation


@dataclass(frozen=True)
class Tokens:
    """The tokens of a signed-in customer, guest or member of staff."""

    access_token: str
    refresh_token: str


class TokenStorage(Protocol):
    """Stores the tokens of one session. Clients that share a storage share the session."""

    def load(self) -> Tokens | None:
        """Return the tokens, or None without a session."""
        ...

    def save(self, tokens: Tokens | None) -> None:
        """Replace the tokens; None removes them."""
        ...


class MemoryTokenStorage:
    """Stores the tokens in this process."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens

    def load(self) -> Tokens | None:
        return self._tokens

    def save(self, tokens: Tokens | None) -> None:
        self._tokens = tokens


def tokens_of(pair: TokenPair | GuestTokens) -> Tokens:
    return Tokens(pair.access_token, pair.refresh_token)


def sign_in(username: str, password: str) -> Operation[TokenPair]:
    form = TokenForm(grant_type=GrantType.PASSWORD, username=username, password=password)
    return issue_token(body=form)


def renew(tokens: Tokens) -> Operation[TokenPair]:
    form = TokenForm(grant_type=GrantType.REFRESH_TOKEN, refresh_token=tokens.refresh_token)
    return issue_token(body=form)


def is_refused(response: httpx2.Response) -> bool:
    """Tell whether the shop has refused the refresh token, so that the session has ended."""
    return response.status_code in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED}


def authorize(request: httpx2.Request, tokens: Tokens) -> httpx2.Request:
    """Set the access token of the request, and return it."""
    request.headers["Authorization"] = f"Bearer {tokens.access_token}"
    return request
