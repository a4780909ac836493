"""Test the whole application: policies of routes, wiring, documents, health, lifespan."""

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import text

from markethall.app import Gateway, create_app
from markethall.container import ApplicationContainer
from markethall.contexts import topology
from markethall.event_workers import bind_event_handlers
from markethall.operations.endpoints import MetricsSnapshot
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import Settings, read_settings
from markethall.shared.http.route_policies import RoutePolicy
from markethall.shared.observability.metrics import REGISTRY
from markethall.shared.persistence.postgres import PoolSize, Postgres, Statement
from tests.shared.cache_fixtures import Clock

T = TypeVar("T")

ADMIN = {"admin_email": "admin@example.com", "admin_password": "an admin's long password"}


def memory_settings(**given: Any) -> Settings:
    return read_settings(storage="memory", **ADMIN, **given)


@asynccontextmanager
async def client_of(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        app.lifespan(),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app") as http,
    ):
        yield http


@pytest.fixture(scope="module")
def app() -> Gateway:
    return create_app(memory_settings(debug=True))


@pytest.fixture
async def http(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(create_app(memory_settings(debug=True))) as client:
        yield client


def routes(app: Gateway) -> Iterator[APIRoute]:
    for context in iter_route_contexts(app.app.routes):
        if isinstance(context.original_route, APIRoute):
            yield context.original_route


def policies(dependant: Any) -> list[RoutePolicy]:
    found = [dependant.call] if isinstance(dependant.call, RoutePolicy) else []
    return found + [one for child in dependant.dependencies for one in policies(child)]


def test_every_route_declares_one_policy(app: Gateway) -> None:
    without = [route.path for route in routes(app) if len(policies(route.dependant)) != 1]

    assert len(list(routes(app))) > 40
    assert without == []


def test_every_path_belongs_to_its_context() -> None:
    for context, manifest in topology().contexts.items():
        router = manifest.load_parts().router
        segments = {
            route.original_route.path.split("/")[1]
            for route in iter_route_contexts(router.routes)
            if isinstance(route.original_route, APIRoute)
        }
        assert segments == set(manifest.path_prefixes), context


def test_every_subscribed_handler_exists() -> None:
    settings = memory_settings()
    container = ApplicationContainer(settings, load_or_create_secrets(settings))

    for context, subscriptions in topology().subscriptions.items():
        handlers = container.contexts[context].event_handlers()
        assert len(bind_event_handlers(context, subscriptions, handlers)) == len(subscriptions)


IMPORT_ALL = """
import os, sys, threading
import markethall.app, markethall.cli, markethall.server
assert threading.active_count() == 1, threading.enumerate()
if sys.platform == "linux":
    for name in os.listdir("/proc/self/fd"):
        try:
            assert not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"), name
        except FileNotFoundError:  # the listing itself
            pass
"""


def test_import_has_no_side_effects() -> None:
    subprocess.run([sys.executable, "-c", IMPORT_ALL], check=True, timeout=60)


async def test_unknown_routes_and_methods_are_problems(http: httpx2.AsyncClient) -> None:
    missing = await http.get("/nowhere")
    wrong = await http.request("DELETE", "/health")

    assert missing.status_code == 404
    assert missing.json()["code"] == "request.not_found"
    assert wrong.status_code == 405
    assert wrong.json()["code"] == "request.method_not_allowed"
    assert wrong.headers["allow"] == "GET"


async def test_wrong_method_names_all_methods_of_the_path(
    app: Gateway, http: httpx2.AsyncClient
) -> None:
    expected: dict[str, set[str]] = {}
    for route in iter_route_contexts(app.app.routes):
        if route.path:
            expected.setdefault(route.path, set()).update(route.methods or ())

    assert expected["/products/{product_id}"] == {"GET", "PATCH", "DELETE"}
    for path, methods in expected.items():
        wrong = await http.request("TRACE", without_parameters(path))

        assert wrong.status_code == 405, path
        assert set(wrong.headers["allow"].split(", ")) == methods, path


def without_parameters(template: str) -> str:
    return template.replace("{", "").replace("}", "").replace(":path", "")


async def test_a_literal_path_has_no_methods_of_a_path_with_a_parameter(
    app: Gateway, http: httpx2.AsyncClient
) -> None:
    methods_by_path: dict[str, set[str]] = {}
    for route in routes(app):
        if "{" not in route.path:
            methods_by_path.setdefault(route.path, set()).update(route.methods or ())

    assert methods_by_path["/orders/export.csv"] == {"GET"}
    for path, methods in methods_by_path.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - methods:
            wrong = await http.request(method, path)

            assert wrong.status_code == 405, (method, path)
            assert set(wrong.headers["allow"].split(", ")) == methods, (method, path)


@pytest.mark.parametrize(
    "query", ["limit=1&limit=2", "limit=1&%6cimit=1", "q=a&limit=1&q=a", "limit&limit"]
)
async def test_repeated_query_parameter_is_invalid(http: httpx2.AsyncClient, query: str) -> None:
    answer = await http.get(f"/products?{query}")

    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    assert answer.json()["errors"][0]["code"] == "repeated"


async def test_more_than_fifty_query_parameters_are_invalid(http: httpx2.AsyncClient) -> None:
    fifty = "&".join(f"a{number}=1" for number in range(50))

    most, more = await http.get(f"/products?{fifty}"), await http.get(f"/products?{fifty}&b=1")

    assert len(most.json()["errors"]) == 50
    assert [error["code"] for error in more.json()["errors"]] == ["too_many_parameters"]


async def test_trailing_slash_gives_same_response(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/products/", follow_redirects=False)

    assert answer.status_code == 307
    assert answer.headers["location"].endswith("/products")


async def test_valid_request_id_is_echoed(http: httpx2.AsyncClient) -> None:
    valid = await http.get("/health", headers={"X-Request-ID": "checkout-4711"})
    too_long = await http.get("/health", headers={"X-Request-ID": "x" * 500})

    assert valid.headers["x-request-id"] == "checkout-4711"
    assert len(too_long.headers["x-request-id"]) == 36


# Documentation


async def test_docs_load_no_external_host(http: httpx2.AsyncClient) -> None:
    page = await http.get("/docs")

    assert page.status_code == 200
    sources = [part.split('"')[1] for part in page.text.split("src=")[1:]]
    sources += [part.split('"')[1] for part in page.text.split("href=")[1:]]
    assert len(sources) == 3
    for source in sources:
        assert source.startswith("/docs/")
        assert (await http.get(source)).status_code == 200
    assert "https://" not in page.text
    assert (await http.get("/docs/../../settings.py")).status_code == 404


async def test_docs_and_debug_can_be_disabled() -> None:
    async with client_of(create_app(memory_settings(docs="off"))) as http:
        answers = [await http.get(path) for path in ("/docs", "/openapi.json", "/debug")]

    assert [answer.status_code for answer in answers] == [404, 404, 404]


async def test_debug_lists_context_locations(http: httpx2.AsyncClient) -> None:
    debug = (await http.get("/debug")).json()

    assert debug["contexts"]["inventory"] == {"where": "local", "storage": "memory", "remote": None}
    assert "ZeroDivisionError" in debug["provoked_error"]


async def test_metrics_use_route_templates(http: httpx2.AsyncClient) -> None:
    unknown_id = "0199c0de-0000-7000-8000-00000000c0fe"
    await http.get(f"/products/{unknown_id}")
    await http.get("/unknown-path")

    text = (await http.get("/metrics")).text

    assert 'route="/products/{product_id}"' in text
    assert unknown_id not in text
    assert "unknown-path" not in text


def test_every_metric_is_documented() -> None:
    names = {metric.name for metric in REGISTRY.collect()}

    documented = Path("docs/metrics.md").read_text()
    assert {name for name in names if f"`{name}" not in documented} == set()


# Health


async def test_ready_names_unavailable_dependencies(tmp_path: Any) -> None:
    settings = read_settings(
        database_url="postgresql://user@127.0.0.1:1/unreachable", data_dir=tmp_path
    )
    async with client_of(create_app(settings)) as http:
        alive, ready = await http.get("/health"), await http.get("/ready")

    assert alive.status_code == 200
    assert ready.status_code == 503
    assert ready.headers["retry-after"]
    assert ready.json()["details"]["failing"] == ["postgres"]


async def test_ready_is_false_once_shutdown_begins(app: Gateway) -> None:
    app = create_app(memory_settings())
    async with client_of(app) as http:
        before = await http.get("/ready")
        app.readiness.draining = True
        after = await http.get("/ready")

    assert before.status_code == 200
    assert after.json()["details"]["failing"] == ["shutdown"]


async def test_lifespan_closes_all_connections(database_url: str, tmp_path: Any) -> None:
    given = {"data_dir": tmp_path, "database_timeout": 30}
    settings = read_settings(database_url=database_url, **given, **ADMIN)

    async with client_of(create_app(settings)) as http:
        assert (await http.get("/ready")).status_code == 200

    watcher = Postgres(
        database_url, PoolSize(min_size=1, max_size=1, timeout=30), application_name="watcher"
    )
    async with watcher.read_session() as connection, asyncio.timeout(30):
        # Postgres removes the row of a connection a moment after the client has closed it
        while await connection.fetch_value(OPEN_CONNECTIONS):
            await asyncio.sleep(0.01)
    await watcher.close()


OPEN_CONNECTIONS = Statement(
    text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'markethall'"
    )
)


async def test_exhausted_pool_is_503_with_retry_after(database_url: str, tmp_path: Any) -> None:
    settings = read_settings(
        database_url=database_url,
        data_dir=tmp_path,
        database_pool_min=1,
        database_pool_max=1,
        database_timeout=3,
    )
    app = create_app(settings)
    transport = httpx2.ASGITransport(app)
    pool = app.container.process.databases().get(settings.database_url_of("inventory"))
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as http:
        async with pool.read_session():
            answer = await http.get("/products")
        after_release = await http.get("/products")
    await app.container.close()

    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.json()["code"] == "system.unavailable"
    assert after_release.status_code == 200


# Restart of the application


def test_application_starts_again_on_another_event_loop() -> None:
    app = create_app(memory_settings(bcrypt_cost=4))

    for _ in range(2):
        finished = run_in_thread(lambda: asyncio.run(_import_a_file(app)))
        assert (finished["status"], finished["rows"]["created"]) == ("done", 1)


def run_in_thread(work: Callable[[], T]) -> T:
    """Run `work` in another thread, because an event loop already runs in this one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result()


async def _import_a_file(app: Gateway) -> dict[str, Any]:
    async with client_of(app) as http, asyncio.timeout(20):
        assert (await http.get("/ready")).status_code == 200
        form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
        token = (await http.post("/token", data=form)).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/csv"}
        file = b"sku,name,price\nA-1,One,1.00\n"
        created = await http.post("/imports", content=file, headers=headers)
        while True:
            state = (await http.get(created.headers["location"], headers=headers)).json()
            if state["finished_at"]:
                return dict(state)
            await asyncio.sleep(0.02)


# No blocking call on the event loop


async def test_nothing_blocks_the_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    """A password hash of cost 13 takes half a second, so the test detects one on the event loop."""
    app = create_app(memory_settings(bcrypt_cost=13))
    async with client_of(app) as http:
        for attempt in range(20):
            caplog.clear()
            warnings = caplog.at_level(logging.WARNING, logger="asyncio")
            with warnings, _report_slow_callbacks(SLOW_CALLBACK_SECONDS), PauseMeter() as pauses:
                await _register_and_read(http, f"anna{attempt}")
            slow = [record.message for record in caplog.records if "took" in record.message]
            if not slow or pauses.longest < SLOW_CALLBACK_SECONDS / 2:
                break  # otherwise the slow callback may be due to a pause of the process, so retry

    assert slow == []


SLOW_CALLBACK_SECONDS = 0.3


@contextmanager
def _report_slow_callbacks(seconds: float) -> Iterator[None]:
    """Make asyncio log each callback that takes longer than `seconds`."""
    loop = asyncio.get_running_loop()
    before = loop.slow_callback_duration
    loop.set_debug(True)
    loop.slow_callback_duration = seconds
    try:
        yield
    finally:
        loop.set_debug(False)
        loop.slow_callback_duration = before


class PauseMeter:
    """Measures pauses of the whole process with a thread. `longest` is in seconds."""

    def __enter__(self) -> Self:
        self.longest = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._measure)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _measure(self) -> None:
        last = time.monotonic()
        while not self._end.wait(0.01):
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now


async def _register_and_read(http: httpx2.AsyncClient, name: str) -> None:
    body = {"username": name, "email": f"{name}@example.com", "password": "a quiet sentence"}
    assert (await http.post("/users", json=body)).status_code == 201
    form = {"username": name, "password": "a quiet sentence"}
    token = (await http.post("/token", data=form)).json()["access_token"]
    me = await http.get("/users/me", headers={"Authorization": f"Bearer {token}"})
    assert me.status_code == 200
    assert (await http.get("/products")).status_code == 200


async def test_metrics_can_be_off() -> None:
    async with client_of(create_app(memory_settings(metrics="off"))) as http:
        assert (await http.get("/metrics")).status_code == 404
        assert (await http.get("/health")).status_code == 200


async def test_metrics_can_require_a_token() -> None:
    app = create_app(memory_settings(metrics_token="a token of the scraper"))
    headers = [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer a token of the scraper"},
    ]
    async with client_of(app) as http:
        statuses = [(await http.get("/metrics", headers=each)).status_code for each in headers]

    assert statuses == [401, 401, 200]


async def test_metrics_port_answers_metrics_only_and_other_ports_do_not() -> None:
    app = create_app(memory_settings(metrics_port=9464))
    requests = [("GET", "/metrics"), ("GET", "/health"), ("GET", "/products"), ("POST", "/orders")]
    async with client_of(app) as http:
        main = [(await http.request(*each)).status_code for each in requests]
        own = [
            (await http.request(method, f"http://app:9464{path}")).status_code
            for method, path in requests
        ]
        problem = await http.get("/metrics")

    assert main == [404, 200, 200, 401]
    assert own == [200, 404, 404, 404]
    assert problem.json()["code"] == "request.not_found"
    assert "/metrics" not in app.app.openapi()["paths"]


async def test_metrics_port_requires_the_token_too() -> None:
    app = create_app(memory_settings(metrics_port=9464, metrics_token="a token of the scraper"))
    async with client_of(app) as http:
        response = await http.get("http://app:9464/metrics")

    assert response.status_code == 401


def test_metrics_are_rendered_once_a_second() -> None:
    clock, renderings = Clock(), []

    def render() -> bytes:
        renderings.append(clock.now)
        return str(clock.now).encode()

    snapshot = MetricsSnapshot(render, clock)
    texts = []
    for seconds in (0.0, 0.0, 0.75, 0.25, 0.0):
        clock.now += seconds
        texts.append(snapshot.read())

    assert renderings == [100.0, 101.0]
    assert texts == [b"100.0"] * 3 + [b"101.0"] * 2
