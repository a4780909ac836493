"""Test the server of the example storefront, and its command."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from markethall.local.storefront import (
    ApiState,
    StorefrontFiles,
    check_api,
    parse_api_url,
    storefront_app,
)
from tests.browser.chromium import static_site
from tests.test_cli import markethall

API: Final = "http://127.0.0.1:8000"
PAGES: Final = (
    "",
    "product.html",
    "cart.html",
    "checkout.html",
    "order.html",
    "orders.html",
    "sign-in.html",
    "find-order.html",
)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    app = storefront_app(API, StorefrontFiles.find())
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://storefront") as http:
        yield http


@pytest.mark.parametrize("page", PAGES)
async def test_pages_contain_no_inline_script_or_style(
    client: httpx2.AsyncClient, page: str
) -> None:
    response = await client.get(f"/{page}")

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<style" not in response.text
    assert " style=" not in response.text
    assert response.text.count("<script") == response.text.count('<script type="module" src=') == 1


async def test_policy_allows_requests_to_the_pages_and_the_api_only(
    client: httpx2.AsyncClient,
) -> None:
    for path in ("/", "/config.json", "/markethall-client.js", "/no-such-page"):
        policy = (await client.get(path)).headers["Content-Security-Policy"]
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == "'self'"
        assert rules["connect-src"] == f"'self' {API}"


async def test_client_is_the_committed_bundle(client: httpx2.AsyncClient) -> None:
    response = await client.get("/markethall-client.js")

    assert response.headers["Content-Type"].startswith("text/javascript")
    assert "createMarkethall" in response.text
    assert (await client.get("/config.json")).json() == {"api_url": API}


@pytest.mark.parametrize(
    "path",
    ["/../README.md", "/%2e%2e/README.md", "/modules/", "/modules/..%2f..%2fREADME.md", "/%00"],
)
async def test_files_outside_of_the_site_are_not_served(
    client: httpx2.AsyncClient, path: str
) -> None:
    assert (await client.get(path)).status_code == 404


def test_modules_write_no_html() -> None:
    modules = list((StorefrontFiles.find().pages / "modules").glob("*.js"))

    assert modules
    for module in modules:
        text = module.read_text()
        found = [
            name
            for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
            if name in text
        ]
        assert (module.name, found) == (module.name, [])


@pytest.mark.parametrize("url", [API, f"{API}/", "https://api.example.com", "http://[::1]:8000"])
def test_address_of_the_api_is_accepted(url: str) -> None:
    assert parse_api_url(url) == url.removesuffix("/")


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://a", "http://", f"{API}/v1", f"{API}; script-src *", f"{API}?a=1",
     "http://user@host", "http://a b", f"{API}\n"],
)  # fmt: skip
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        parse_api_url(url)


def test_api_that_is_not_there_is_unreachable() -> None:
    with static_site({"/index.html": "no API"}) as other_server:
        assert check_api(other_server, "http://127.0.0.1:3000") == ApiState.UNREACHABLE
    assert check_api(other_server, "http://127.0.0.1:3000") == ApiState.UNREACHABLE


@pytest.mark.parametrize(
    ("option", "value"), [("--api", "ftp://somewhere"), ("--port", "70000"), ("--port", "x")]
)
def test_wrong_option_exits_with_2(option: str, value: str) -> None:
    result = markethall("demo", "--storefront", option, value)

    assert result.returncode == 2
    assert option in result.stderr


def test_used_port_exits_with_2_and_names_it() -> None:
    with static_site({}) as origin:
        port = origin.rpartition(":")[2]
        result = markethall("demo", "--storefront", "--port", port)

    assert result.returncode == 2
    assert f"--port {port}: Address already in use" in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_signal_ends_the_command(number: signal.Signals, code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "markethall", "demo", "--storefront", "--port", "0"]
    with static_site({}) as api:
        process = subprocess.Popen(
            [*command, "--api", api], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
    assert process.stdout
    with process.stdout as output:
        lines = [output.readline() for _ in range(5)]
        origin = lines[0].removeprefix("Storefront: ").strip()
        with httpx2.Client(transport=httpx2.HTTPTransport(retries=10), timeout=30) as http:
            assert http.get(origin).status_code == 200
        process.send_signal(number)

        assert process.wait(30) == code
    assert f"MARKETHALL_CORS_ORIGINS={origin}" in lines[1]
    assert lines[2].startswith("No API answers")
    assert f"MARKETHALL_ORDER_LINK_URL={origin}/order.html" in lines[4]
