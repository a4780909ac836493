"""Serves the pages of the example storefront, which call the API from the browser."""

import re
import socket
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PACKAGE: Final = Path(__file__).parents[1]
_REPOSITORY: Final = _PACKAGE.parents[1]
_BUNDLE: Final = "markethall-client.js"
_ORIGIN: Final = re.compile(
    r"(https?://[A-Za-z0-9.-]+(?::\d{1,5})?|https?://\[[0-9A-Fa-f:]+\](?::\d{1,5})?)/?"
)
_CHECK_SECONDS: Final = 5


class ApiState(Enum):
    """The response of the API to a page of the storefront."""

    USABLE = "usable"
    EMPTY = "empty"
    ORIGIN_REFUSED = "origin_refused"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class StorefrontFiles:
    """The folder of the pages, and the bundle of the TypeScript client."""

    pages: Path
    bundle: Path

    @classmethod
    def find(cls) -> "StorefrontFiles":
        """Find the files in the repository, or in the installed package."""
        in_repository = cls(
            _REPOSITORY / "examples/storefront/site",
            _REPOSITORY / "clients/typescript/browser" / _BUNDLE,
        )
        installed = _PACKAGE / "storefront"
        in_package = cls(installed, installed / _BUNDLE)
        return in_package if in_package.bundle.is_file() else in_repository


def parse_api_url(text: str) -> str:
    """Return the URL without a slash at its end. Raises ValueError if it is no origin."""
    if not (match := _ORIGIN.fullmatch(text)):
        raise ValueError("not an address such as http://127.0.0.1:8000, without a path")
    return match[1]


def storefront_app(api_url: str, files: StorefrontFiles) -> Starlette:
    """Create the application that serves the pages, the client, and the address of the API."""

    def send_config(_: Request) -> JSONResponse:
        return JSONResponse({"api_url": api_url})

    def send_bundle(_: Request) -> FileResponse:
        return FileResponse(files.bundle)

    return Starlette(
        routes=[
            Route("/config.json", send_config),
            Route(f"/{_BUNDLE}", send_bundle),
            Mount("/", StaticFiles(directory=files.pages, html=True)),
        ],
        middleware=[Middleware(_PageHeaders, api_url=api_url)],
    )


class _PageHeaders:
    """Adds the content security policy, which allows requests only to the pages and to the API."""

    def __init__(self, app: ASGIApp, api_url: str) -> None:
        self._app = app
        self._policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; "
            f"connect-src 'self' {api_url}; img-src 'self' {api_url}; "
            "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = self._policy
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                # the browser revalidates each file, so that a reload shows changed files
                headers["Cache-Control"] = "no-cache"
            await send(message)

        await self._app(scope, receive, send_with_headers)


def check_api(api_url: str, origin: str) -> ApiState:
    """Request the catalogue as a page of this origin does."""
    try:
        response = httpx2.get(
            f"{api_url}/families?limit=1", headers={"Origin": origin}, timeout=_CHECK_SECONDS
        )
        if response.status_code != HTTPStatus.OK:
            return ApiState.UNREACHABLE
        if response.headers.get("Access-Control-Allow-Origin") not in {origin, "*"}:
            return ApiState.ORIGIN_REFUSED
        return ApiState.USABLE if response.json()["items"] else ApiState.EMPTY
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        return ApiState.UNREACHABLE


def listen(port: int) -> socket.socket:
    """Return a socket that listens on loopback; port 0 is a free port. Raises OSError."""
    return socket.create_server(("127.0.0.1", port))


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM. After the stop, uvicorn raises the signal again."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])
