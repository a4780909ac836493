"""Test `markethall local-cluster`: one URL, four services, and a complete shutdown."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.e2e.dedicated_server import wait_for_exit
from tests.e2e.servers import ADMIN, CONTEXTS, free_port
from tests.e2e.shop import TIMEOUT_SECONDS, Person, Shop, expect_problem, expect_status
from tests.e2e.test_order_events import next_of, order_events, placed
from tests.e2e.test_shutdown import wait_until
from tests.local_cluster.cluster_process import (
    ClusterProcess,
    environment,
    ready_cluster,
    remaining_processes,
    started_cluster,
)
from tests.progress import progress_limit

# four services, Postgres, Valkey and the proxy
MIN_PROCESSES = 7
MAX_STREAMS = 2


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def cluster(scratch: Path, metrics_port: int) -> Iterator[ClusterProcess]:
    with ready_cluster(
        scratch / "cluster-1",
        metrics_port=str(metrics_port),
        max_order_streams_per_client=str(MAX_STREAMS),
    ) as found:
        yield found


@pytest.fixture
async def shop(cluster: ClusterProcess) -> AsyncIterator[Shop]:
    async with httpx2.AsyncClient(timeout=20) as http:
        shop = Shop(cluster.server, http)
        await shop.sign_in_admin(*ADMIN)
        yield shop


async def test_order_is_placed_paid_and_fulfilled_through_proxy(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=5)

    order = expect_status(await shop.place(buyer, product["product_id"], 2), 201)
    expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    await shop.wait_for_status(buyer, order["order_id"], status="processing", payment_status="paid")
    path, parcel = (
        f"/orders/{order['order_id']}/fulfilments",
        {"carrier": "X", "tracking_number": "1"},
    )
    fulfilment = expect_status(await shop.post(path, shop.admin, json=parcel), 201)
    expect_status(
        await shop.post(f"/fulfilments/{fulfilment['fulfilment_id']}/deliver", shop.admin), 200
    )
    await shop.wait_for_status(buyer, order["order_id"], status="completed")

    await shop.wait_for_available(product["product_id"], 3)


async def test_order_events_arrive_through_the_proxy_while_the_stream_is_open(shop: Shop) -> None:
    buyer, order = await placed(shop)

    async with order_events(shop, buyer, order["order_id"]) as events:
        first = await next_of(events)
        expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
        paid = await next_of(events)
    async with order_events(shop, buyer, order["order_id"], paid["version"] - 1) as events:
        again = await next_of(events)

    assert (first["change"], first["status"]) == ("placed", "pending")
    assert (paid["change"], paid["version"]) == ("paid", first["version"] + 1)
    assert again == paid


async def test_disconnected_client_ends_its_stream_in_the_service(shop: Shop) -> None:
    """Streams per client are limited, so a new stream shows that an old one has ended."""
    buyer, order = await placed(shop)
    path = f"/orders/{order['order_id']}/events"

    async with AsyncExitStack() as stack:
        opened = [await open_stream(stack, shop, buyer, path) for _ in range(MAX_STREAMS)]
        # a stream ends if its token cannot be verified in time, and its slot is then free for
        # another one
        while opened[-1].status_code == 200:
            opened.append(await open_stream(stack, shop, buyer, path))
        await opened[-1].aread()
        expect_problem(opened[-1], 429, "request.rate_limited")

    async with asyncio.timeout(TIMEOUT_SECONDS):
        for _ in range(MAX_STREAMS):
            while not await opens_stream(shop, buyer, path):
                await asyncio.sleep(0.05)  # until the service has noticed the disconnect


async def open_stream(
    stack: AsyncExitStack, shop: Shop, person: Person, path: str
) -> httpx2.Response:
    """Start a response. The caller closes it with `stack`."""
    url = shop.server.url(path)
    return await stack.enter_async_context(shop.http.stream("GET", url, headers=person.headers))


async def opens_stream(shop: Shop, person: Person, path: str) -> bool:
    url = shop.server.url(path)
    async with shop.http.stream("GET", url, headers=person.headers) as response:
        return response.status_code == 200


async def test_each_process_is_reported_with_its_pid_and_url(cluster: ClusterProcess) -> None:
    pids = {context: cluster.pid_of(context) for context in CONTEXTS}

    assert cluster.pid_of("proxy") == cluster.process.pid
    assert cluster.url in cluster.stderr
    assert set(pids.values()) < set(cluster.all_pids)
    for pid in pids.values():
        command = psutil.Process(pid).cmdline()
        url = f"http://127.0.0.1:{command[command.index('--port') + 1]}"
        assert "markethall" in command
        assert f"{pid:<8}{url}" in cluster.stderr


async def test_metrics_of_the_proxy_are_on_their_port_only(
    cluster: ClusterProcess, metrics_port: int
) -> None:
    async with httpx2.AsyncClient() as http:
        statuses = [
            (await http.get(f"http://127.0.0.1:{port}{path}")).status_code
            for port in (cluster.port, metrics_port)
            for path in ("/metrics", "/products")
        ]

    assert statuses == [404, 200, 200, 404]


async def test_log_lines_name_the_service_and_the_client(cluster: ClusterProcess) -> None:
    headers = {"X-Request-ID": "cluster-request-01", "X-Forwarded-For": "203.0.113.9"}
    transport = httpx2.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx2.AsyncClient(base_url=cluster.url, transport=transport) as http:
        await http.get("/products", headers=headers)

    line = await line_of(cluster, "cluster-request-01")

    assert (line["service"], line["context"], line["path"]) == ("inventory",) * 2 + ("/products",)
    assert line["client_ip"] == "127.0.0.2"
    services = {json.loads(text).get("service") for text in cluster.log_lines}
    assert set(CONTEXTS) <= services


async def line_of(cluster: ClusterProcess, request_id: str) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        lines = [json.loads(text) for text in cluster.log_lines if request_id in text]
        return [line for line in lines if line.get("request_id") == request_id]

    await wait_until(found)
    (line,) = found()
    return line


async def test_cli_commands_work_against_running_cluster(
    cluster: ClusterProcess, shop: Shop
) -> None:
    demo = command(cluster, "demo")
    staff = command(cluster, "create-staff", "clerk@example.com", "--password-stdin")

    assert demo.stdout.splitlines()[0] == "24 products added.", demo.stderr
    assert "3 shipping methods, 6 tax rates and 2 vouchers added." in demo.stdout
    assert "is staff now" in staff.stdout, staff.stderr
    listed = expect_status(await shop.get("/products?limit=100"), 200)["items"]
    assert len(listed) >= 24
    clerk = await shop.sign_in("clerk@example.com", "a long enough sentence")
    assert clerk["access_token"]


def command(cluster: ClusterProcess, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "markethall", *arguments],
        env=environment(cluster.folder),
        input="a long enough sentence\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


async def test_a_killed_service_restarts_and_the_shutdown_leaves_no_process(scratch: Path) -> None:
    with ready_cluster(scratch / "cluster-2") as cluster:
        await kill_inventory_and_wait_for_its_restart(cluster)
        pids = cluster.all_pids

        cluster.process.send_signal(signal.SIGINT)

        assert await wait_for_exit(cluster.process, within=60) == 0
        assert len(pids) >= MIN_PROCESSES
        assert remaining_processes(pids) == []
        assert "Traceback" not in cluster.stderr


async def kill_inventory_and_wait_for_its_restart(cluster: ClusterProcess) -> None:
    killed = cluster.pid_of("inventory")
    os.kill(killed, signal.SIGKILL)
    await wait_until(lambda: not remaining_processes([killed]))
    async with httpx2.AsyncClient(base_url=cluster.url, timeout=20) as http:
        products = await http.get("/products")
        me = await http.get("/users/me")
        ready = await http.get("/ready")
        async with progress_limit(60) as limit:
            while (answer := await http.get("/ready")).status_code != 200:
                limit.note(answer.json()["details"])
                await asyncio.sleep(0.05)
        restarted = await http.get("/products")

    assert expect_problem(products, 503, "system.unavailable")["details"] == {
        "dependency": "inventory"
    }
    expect_problem(me, 401, "auth.unauthenticated")
    assert expect_problem(ready, 503, "system.not_ready")["details"] == {"failing": ["inventory"]}
    assert restarted.status_code == 200
    assert "inventory ended by SIGKILL; it starts again in" in cluster.stderr
    await wait_until(lambda: cluster.pid_of("inventory") != killed)


async def test_no_process_survives_kill_9_of_the_cluster(scratch: Path) -> None:
    """The services must end even if one of them is suspended and reacts only to SIGKILL."""
    with ready_cluster(scratch / "cluster-3") as cluster:
        pids = cluster.all_pids
        os.kill(cluster.pid_of("payments"), signal.SIGSTOP)

        cluster.process.kill()

        await wait_until(lambda: not remaining_processes(pids))
        assert len(pids) >= MIN_PROCESSES


async def test_a_service_that_cannot_start_ends_the_cluster_with_its_reason(scratch: Path) -> None:
    folder = scratch / "cluster-4"
    keys = folder / "data" / "keys"
    keys.mkdir(parents=True)
    (keys / "secret").write_text("damaged")

    with started_cluster(folder) as cluster:
        code = await wait_for_exit(cluster.process, within=120)

    assert code == 2
    assert "cannot start: ended with exit code 2" in cluster.stderr
    assert "error: MARKETHALL_DATA_DIR: the secret in" in cluster.stderr
    assert "Traceback" not in cluster.stderr


async def test_port_in_use_is_one_error_line(scratch: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        started_cluster(scratch / "cluster-4", port=taken.getsockname()[1]) as cluster,
    ):
        code = await wait_for_exit(cluster.process, within=60)

    assert code == 1
    assert "error:" in cluster.stderr
    assert "Traceback" not in cluster.stderr


def test_topology_shows_the_processes_of_a_running_cluster(cluster: ClusterProcess) -> None:
    lines = topology_of(cluster.folder)

    found = {line.split()[0]: line.split()[1:] for line in lines}
    assert list(found) == ["proxy", *CONTEXTS, "Postgres", "Valkey"]
    assert found["proxy"] == ["pid", str(cluster.process.pid), cluster.url]
    assert {c: found[c][1] for c in CONTEXTS} == {c: str(cluster.pid_of(c)) for c in CONTEXTS}
    assert all(found[c][2].startswith("http://127.0.0.1:") for c in CONTEXTS)
    assert {int(words[1]) for words in found.values()} <= set(cluster.all_pids)


def test_topology_ignores_the_record_of_a_killed_cluster(tmp_path: Path) -> None:
    record = {"pid": os.getpid(), "started": 0, "proxy": "http://127.0.0.1:1", "services": {}}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cluster.json").write_text(json.dumps(record))

    assert all(line.split()[1] == "here" for line in topology_of(tmp_path)[: len(CONTEXTS)])


def topology_of(folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "markethall", "topology"],
        env=environment(folder),
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.splitlines()


async def test_killed_database_and_valkey_are_restarted(
    cluster: ClusterProcess, shop: Shop
) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=5)
    order = expect_status(await shop.place(buyer, product["product_id"], 2), 201)

    for name in ("postgres", "valkey-server"):
        os.kill(child_of(cluster, name).pid, signal.SIGKILL)

    payment = f"/payments/{order['payment']['payment_id']}"
    await wait_until_answered(shop, payment, buyer)
    expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    # the event from payments to orders goes through Valkey
    await shop.wait_for_status(buyer, order["order_id"], status="processing", payment_status="paid")
    assert cluster.process.poll() is None


async def test_database_that_cannot_restart_ends_the_cluster(scratch: Path) -> None:
    with ready_cluster(scratch / "cluster-database-lost") as cluster:
        pids = cluster.all_pids
        (cluster.folder / "data" / "postgres" / "global" / "pg_control").unlink()
        os.kill(child_of(cluster, "postgres").pid, signal.SIGKILL)

        code = await wait_for_exit(cluster.process, 120)

        assert code == 1
        assert cluster.stderr.splitlines()[-1].startswith(
            "error: Postgres ended 6 times within a minute: "
        )
        await wait_until(lambda: not remaining_processes(pids))


def child_of(cluster: ClusterProcess, name: str) -> psutil.Process:
    """Return the process of an embedded server, which is a direct child of the cluster."""
    children = psutil.Process(cluster.process.pid).children()
    return next(child for child in children if child.name() == name)


async def wait_until_answered(shop: Shop, path: str, person: Person) -> None:
    """Repeat the GET while its status is 503 or 504. Then expect the status 200."""
    while (answer := await shop.get(path, person)).status_code in {503, 504}:
        await asyncio.sleep(0.1)
    expect_status(answer, 200)
