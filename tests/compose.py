"""Test the services of compose.yaml as processes, with their environments and their proxy.

Only what a container engine provides is replaced: the names of hosts, the servers of Postgres and
Valkey, and the ports. The file is not named `test_*.py`, because it needs the program nginx: pytest
runs it only if its path is given, as `make test-compose` does.
"""

import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import yaml

from tests.conftest import plain
from tests.e2e.dedicated_server import dedicated_database
from tests.e2e.servers import (
    ADMIN,
    CONTEXTS,
    RunningServer,
    end,
    free_port,
    spawn,
    wait_until_ready,
)
from tests.e2e.shop import Shop, expect_status
from tests.test_cli import markethall

ROOT: Final = Path(__file__).parents[1]
SERVICES: Final[dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
NGINX: Final = """
pid {folder}/nginx.pid;
error_log {folder}/error.log;
daemon off;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/proxy.conf;
}}
"""


def environment_of(
    service: str, ports: Mapping[str, int], replaced: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables of a service, with the addresses of this machine."""
    variables = {}
    for name, text in SERVICES[service]["environment"].items():
        value = re.sub(r"\$\{\w+:-(.*)\}", r"\1", text)
        for host, port in ports.items():
            value = value.replace(f"http://{host}:8000", f"http://127.0.0.1:{port}")
        variables[name] = value
    administrator = {
        "MARKETHALL_ADMIN_EMAIL": ADMIN[0],
        "MARKETHALL_ADMIN_PASSWORD": ADMIN[1],
        "MARKETHALL_LOG_FORMAT": "json",
    }
    return {**variables, **administrator, **replaced}


@contextmanager
def running_service(
    service: str, port: int, environment: Mapping[str, str], folder: Path
) -> Iterator[tuple[int, Path]]:
    log = folder / f"{service}.log"
    with log.open("ab") as output:
        process = spawn(port, environment, (), output)
    try:
        wait_until_ready(process, port, log)
        yield process.pid, log
    finally:
        end(process)


@contextmanager
def running_proxy(ports: Mapping[str, int], folder: Path) -> Iterator[str]:
    """Run nginx with compose/proxy.conf, and yield its URL."""
    port = free_port()
    text = (ROOT / "compose/proxy.conf").read_text()
    for service, service_port in ports.items():
        text = text.replace(f" {service};", f" 127.0.0.1:{service_port};")
    text = text.replace("http://$service:8000", "http://$service")
    text = text.replace("listen 8080", f"listen 127.0.0.1:{port}")
    (folder / "proxy.conf").write_text(text)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@asynccontextmanager
async def compose_shop(
    services: list[str], folder: Path, replaced: Mapping[str, str]
) -> AsyncIterator[Shop]:
    """Run `migrate`, then the services, which share a data directory as they share a volume."""
    ports = {service: free_port() for service in services}
    settings = {name.removeprefix("MARKETHALL_").lower(): text for name, text in replaced.items()}
    migrated = markethall(*SERVICES["migrate"]["command"], **settings)
    assert migrated.returncode == 0, migrated.stderr
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                running_service(service, port, environment_of(service, ports, replaced), folder)
            )
            for service, port in ports.items()
        ]
        if len(services) == 1:
            url = f"http://127.0.0.1:{ports[services[0]]}"
        else:
            url = stack.enter_context(running_proxy(ports, folder))
        pids, logs = zip(*started, strict=True)
        server = RunningServer(dict.fromkeys(CONTEXTS, url), pids, logs[0], other_logs=logs[1:])
        async with httpx2.AsyncClient(timeout=20) as http:
            shop = Shop(server, http)
            await shop.sign_in_admin(*ADMIN)
            yield shop


@pytest.mark.parametrize(
    "services", [["app"], sorted(SERVICES["proxy"]["depends_on"])], ids=["app", "split"]
)
async def test_customer_buys(
    services: list[str], scratch: Path, server_url: str, template: str, redis_url: str
) -> None:
    folder = scratch / f"compose-{len(services)}"
    folder.mkdir()
    folder.chmod(0o777)
    async with dedicated_database(server_url, template) as url:
        replaced = {
            "MARKETHALL_DATABASE_URL": plain(url),
            "MARKETHALL_REDIS_URL": redis_url,
            "MARKETHALL_DATA_DIR": str(folder),
        }
        async with compose_shop(services, folder, replaced) as shop:
            buyer, product = await shop.customer(), await shop.product()
            order = expect_status(await shop.place(buyer, product["product_id"]), 201)
            expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
            paid = await shop.wait_for_status(buyer, order["order_id"], status="processing")
            unrouted = await shop.http.get(shop.server.url("/orders").replace("/orders", "/none"))

    assert paid["payment_status"] == "paid"
    assert unrouted.status_code == 404
