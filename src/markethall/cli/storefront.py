"""Serves the example storefront, and prints the settings that the API needs for its pages."""

from contextlib import suppress
from typing import Final

from markethall.cli.console import fail, out
from markethall.cli.runtime import exit_on_sigterm
from markethall.local.demo.configuration import VOUCHER_LINE
from markethall.local.storefront import (
    ApiState,
    StorefrontFiles,
    check_api,
    listen,
    parse_api_url,
    serve,
    storefront_app,
)

_SETTING: Final = "MARKETHALL_CORS_ORIGINS"
_LINK_SETTING: Final = "MARKETHALL_ORDER_LINK_URL"


def serve_storefront(port: int, api: str) -> None:
    """Serve the pages on loopback until Ctrl-C or SIGTERM. Port 0 is a free port."""
    try:
        api_url = parse_api_url(api)
    except ValueError as error:
        fail(f"--api {api}: {error}")
    try:
        listener = listen(port)
    except OSError as error:
        fail(f"--port {port}: {error.strerror}")
    with listener, exit_on_sigterm(), suppress(KeyboardInterrupt):
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for line in _introduction(origin, api_url):
            out.print(line, markup=False)
        serve(storefront_app(api_url, StorefrontFiles.find()), listener)


def _introduction(origin: str, api_url: str) -> list[str]:
    return [
        f"Storefront: {origin}",
        f"API: {api_url}, which needs {_SETTING}={origin}",
        *_advice(check_api(api_url, origin), origin, api_url),
        f"Links to orders, which the API logs: {_link_setting(origin)}",
        f"{VOUCHER_LINE}, after `markethall demo`",
        "Press Ctrl-C to stop.",
    ]


def _advice(state: ApiState, origin: str, api_url: str) -> list[str]:
    match state:
        case ApiState.USABLE:
            return []
        case ApiState.EMPTY:
            return ["The catalogue is empty. `markethall demo` fills the shop."]
        case ApiState.ORIGIN_REFUSED:
            return [
                f"The API at {api_url} refuses the pages of {origin}. Restart it with the setting:",
                _serve_command(origin),
            ]
        case ApiState.UNREACHABLE:
            return [
                f"No API answers at {api_url}. Start it with the setting:",
                _serve_command(origin),
            ]


def _serve_command(origin: str) -> str:
    return f"  {_SETTING}={origin} {_link_setting(origin)} markethall serve"


def _link_setting(origin: str) -> str:
    return f"{_LINK_SETTING}={origin}/order.html"
