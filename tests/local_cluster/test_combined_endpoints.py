"""Test the endpoints that the cluster answers itself, such as /ready for all services."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from markethall.app import create_app
from markethall.contexts import context_names, topology
from markethall.settings import Settings, read_settings
from tests.e2e.shop import expect_problem, expect_status
from tests.local_cluster.fake_services import FakeCluster, answer, cluster_of, fake_cluster
from tests.rpc import tcp


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with fake_cluster() as found:
        yield found


@pytest.fixture
async def http(cluster: FakeCluster) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=cluster.url, timeout=20) as client:
        yield client


async def test_health_does_not_depend_on_the_services(
    cluster: FakeCluster, http: httpx2.AsyncClient
) -> None:
    for service in cluster.services.values():
        service.handler = answer(503)

    assert expect_status(await http.get("/health"), 200) == {"status": "ok"}


async def test_cluster_is_ready_when_all_services_are(
    cluster: FakeCluster, http: httpx2.AsyncClient
) -> None:
    ready = expect_status(await http.get("/ready"), 200)

    assert ready == {"status": "ready", "checks": dict.fromkeys(context_names(), "ok")}
    assert cluster.requests == [b"GET /ready"] * 4


async def test_readiness_names_the_services_that_are_not_ready(
    cluster: FakeCluster, http: httpx2.AsyncClient
) -> None:
    cluster.services["orders"].handler = answer(503)
    cluster.services["inventory"].handler = answer(503)

    response = await http.get("/ready")

    problem = expect_problem(response, 503, "system.not_ready")
    assert problem["details"] == {"failing": ["inventory", "orders"]}
    assert response.headers["retry-after"] == "1"


async def test_cluster_is_not_ready_during_shutdown(
    cluster: FakeCluster, http: httpx2.AsyncClient
) -> None:
    cluster.app.app.state.readiness.draining = True

    problem = expect_problem(await http.get("/ready"), 503, "system.not_ready")

    assert problem["details"] == {"failing": ["shutdown"]}


async def test_metrics_are_of_proxy_only(cluster: FakeCluster, http: httpx2.AsyncClient) -> None:
    response = await http.get("/metrics")

    assert "http_requests" in response.text
    assert cluster.requests == []


async def test_metrics_port_of_proxy_answers_metrics_only() -> None:
    async with fake_cluster(metrics_port=9464) as cluster:
        transport = httpx2.ASGITransport(cluster.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://cluster") as http:
            main = [(await http.get(path)).status_code for path in ("/metrics", "/orders")]
            own = [
                (await http.get(f"http://cluster:9464{path}")).status_code
                for path in ("/metrics", "/orders", "/health")
            ]

    assert main == [404, 200]
    assert own == [200, 404, 404]
    assert cluster.requests == [b"GET /orders"]


@pytest.mark.parametrize("path", ["/stats", "/integrity", "/debug"])
async def test_endpoints_of_one_process_are_not_public(
    cluster: FakeCluster, http: httpx2.AsyncClient, path: str
) -> None:
    expect_problem(await http.get(path), 404, "request.not_found")

    assert cluster.requests == []


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_wrong_method_is_rejected(http: httpx2.AsyncClient, method: str) -> None:
    expect_problem(await http.request(method, "/ready"), 405, "request.method_not_allowed")


@asynccontextmanager
async def real_services(folder: Path, **settings: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client of a cluster with the four real applications."""
    async with AsyncExitStack() as stack:
        urls = {}
        for context in context_names():
            app = create_app(settings_of(context, folder, **settings))
            urls[context] = await stack.enter_async_context(tcp.serve_app(app))
        url, _ = await stack.enter_async_context(cluster_of(urls, **settings))
        yield await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=20))


def settings_of(context: str, folder: Path, **settings: str) -> Settings:
    return read_settings(
        contexts=context,
        context_urls=dict.fromkeys(
            topology().dependencies[context] | topology().jwks_sources[context],
            "http://127.0.0.1:1",
        ),
        redis_url="redis://127.0.0.1:1",
        storage="memory",
        data_dir=folder,
        **settings,
    )


async def test_merged_openapi_document_equals_that_of_the_monolith(tmp_path: Path) -> None:
    monolith = create_app(read_settings(storage="memory", data_dir=tmp_path)).app.openapi()

    async with real_services(tmp_path) as http:
        document = expect_status(await http.get("/openapi.json"), 200)

    assert list(document["paths"]) == list(monolith["paths"])
    assert operations(document) == operations(monolith)
    assert document["components"] == monolith["components"]
    assert document == monolith


def operations(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{method} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


async def test_the_docs_page_loads_only_from_this_server(
    cluster: FakeCluster, http: httpx2.AsyncClient
) -> None:
    page = await http.get("/docs")
    script = await http.get("/docs/swagger-ui-bundle.js")
    nothing = await http.get("/docs/../internal")

    assert "/openapi.json" in page.text
    assert "://" not in page.text.replace("http://www.w3.org", "")
    assert (script.status_code, len(script.content) > 100_000) == (200, True)
    expect_problem(nothing, 404, "request.not_found")
    assert cluster.requests == []


async def test_docs_can_be_switched_off(tmp_path: Path) -> None:
    async with real_services(tmp_path, docs="off") as http:
        for path in ("/docs", "/openapi.json"):
            expect_problem(await http.get(path), 404, "request.not_found")
