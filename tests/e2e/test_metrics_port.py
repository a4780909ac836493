"""Test that a server serves metrics on a separate port, with one worker and with two."""

from pathlib import Path

import httpx2
import pytest

from tests.e2e.dedicated_server import dedicated_database, dedicated_process, port_of
from tests.e2e.servers import free_port


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_metrics_are_served_on_their_port_only(
    scratch: Path, server_url: str, template: str, workers: str
) -> None:
    port = free_port()
    async with dedicated_database(server_url, template) as url:
        settings = {"database_url": url, "metrics_port": str(port)}
        name = f"metrics-{workers}"
        with dedicated_process(scratch, name, "--workers", workers, **settings) as (_, server):
            ports = (port_of(server), port)
            async with httpx2.AsyncClient() as http:
                found = {
                    path: [
                        (await http.get(f"http://127.0.0.1:{each}{path}")).status_code
                        for each in ports
                    ]
                    for path in ("/metrics", "/health", "/products")
                }

    assert found == {"/metrics": [404, 200], "/health": [200, 404], "/products": [200, 404]}
