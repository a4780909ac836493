"""Test that pages of allowed origins can use the local cluster through its reverse proxy."""

import httpx2

from tests.e2e.servers import free_port
from tests.local_cluster.fake_services import answer, cluster_of, fake_cluster

SHOP = "https://shop.example"
PREFLIGHT = {"Origin": SHOP, "Access-Control-Request-Method": "POST"}
SETTINGS = {"cors_origins": (SHOP,)}


async def test_service_answers_the_preflight_behind_the_proxy() -> None:
    async with fake_cluster(**SETTINGS) as cluster, httpx2.AsyncClient() as http:
        orders = cluster.services["orders"]
        orders.handler = answer(204, b"", (b"access-control-allow-origin", b"of the service"))

        response = await http.options(f"{cluster.url}/orders", headers=PREFLIGHT)

    assert orders.requests == [b"OPTIONS /orders"]
    assert response.status_code == 204
    assert response.headers.get_list("access-control-allow-origin") == ["of the service"]


async def test_error_of_the_proxy_has_cors_headers() -> None:
    urls = {"orders": f"http://127.0.0.1:{free_port()}"}
    async with cluster_of(urls, **SETTINGS) as (url, _), httpx2.AsyncClient() as http:
        own = await http.get(f"{url}/orders", headers={"Origin": SHOP})
        foreign = await http.get(f"{url}/orders", headers={"Origin": "https://evil.example"})

    assert own.status_code == foreign.status_code == 503
    assert own.headers["access-control-allow-origin"] == SHOP
    assert "Retry-After" in own.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in foreign.headers


async def test_paths_of_the_cluster_itself_allow_the_origin() -> None:
    async with fake_cluster(**SETTINGS) as cluster, httpx2.AsyncClient() as http:
        preflight = await http.options(f"{cluster.url}/health", headers=PREFLIGHT)
        health = await http.get(f"{cluster.url}/health", headers={"Origin": SHOP})

    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-methods"] == "GET"
    assert health.headers["access-control-allow-origin"] == SHOP
