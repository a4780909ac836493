"""Test what SIGTERM does.

The server first reports that it is not ready, then refuses new connections, then sends the last
responses and exits.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from markethall.server import RestartPauses
from tests.e2e.dedicated_server import (
    dedicated_database,
    dedicated_process,
    environment,
    open_shop,
    wait_for_exit,
)
from tests.e2e.servers import (
    START_TIMEOUT_SECONDS,
    RunningServer,
    end,
    free_port,
    spawn,
    wait_until_ready,
)
from tests.e2e.shop import TIMEOUT_SECONDS, Person, Shop, expect_problem, expect_status

SLOW_PAYMENT_SECONDS = 5.0  # the delay of the payment method sandbox_slow


@asynccontextmanager
async def slow_payment(shop: Shop) -> AsyncIterator[tuple[Person, str, Any]]:
    """Start a payment that takes 5 s, and yield when its operation is recorded in the database."""
    buyer, product = await shop.customer(), await shop.product()
    order = expect_status(await shop.place(buyer, product["product_id"]), 201)
    payment_id = order["payment"]["payment_id"]
    paying = asyncio.create_task(shop.confirm(buyer, payment_id, "sandbox_slow"))
    try:
        path = f"/payments/{payment_id}/operations"
        while not expect_status(await shop.get(path, buyer), 200)["items"]:
            await asyncio.sleep(0.01)
        yield buyer, payment_id, paying
    finally:
        paying.cancel()
        await asyncio.gather(paying, return_exceptions=True)


async def get_on_new_connection(server: RunningServer, path: str) -> httpx2.Response | None:
    """Send a GET on a new connection. Return None if the connection fails."""
    async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
        try:
            return await client.get(server.url(path))
        except httpx2.TransportError:
            return None


async def wait_until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


async def assert_drains(server: RunningServer, paying: "asyncio.Task[httpx2.Response]") -> None:
    """Check that the server is first not ready but still responds, then refuses connections."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while (
            ready := await get_on_new_connection(server, "/ready")
        ) is None or ready.status_code == 200:
            await asyncio.sleep(0.02)
    health, products = (
        await get_on_new_connection(server, "/health"),
        await get_on_new_connection(server, "/products"),
    )
    assert expect_problem(ready, 503, "system.not_ready")["details"]["failing"] == ["shutdown"]
    assert ready.headers["retry-after"]
    assert health is not None
    assert health.status_code == 200
    assert products is not None
    assert products.status_code == 200
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while await get_on_new_connection(server, "/health") is not None:
            await asyncio.sleep(0.02)
    assert not paying.done()


@pytest.mark.parametrize("configuration", ["memory", "workers"])
async def test_shutdown_finishes_running_requests(
    scratch: Path, server_url: str, template: str, configuration: str
) -> None:
    name = f"stopping-{configuration}"
    async with dedicated_database(server_url, template) as url:
        arguments = ["--memory"] if configuration == "memory" else ["--workers", "2"]
        settings = {"database_url": url, "drain_seconds": str(SLOW_PAYMENT_SECONDS / 2)}
        with dedicated_process(scratch, name, *arguments, **settings) as (process, server):
            async with open_shop(server) as shop, slow_payment(shop) as (_, _, paying):
                process.terminate()

                await assert_drains(server, paying)

                assert expect_status(await paying, 200)["status"] == "captured"
            assert await wait_for_exit(process, within=TIMEOUT_SECONDS) == 0


async def test_another_asgi_server_drains_too(scratch: Path) -> None:
    with uvicorn_process(scratch / "own-asgi", drain_seconds="2") as (process, url):
        process.terminate()
        async with httpx2.AsyncClient(base_url=url) as client, asyncio.timeout(TIMEOUT_SECONDS):
            while (ready := await client.get("/ready")).status_code == 200:
                await asyncio.sleep(0.02)
        assert expect_problem(ready, 503, "system.not_ready")["details"]["failing"] == ["shutdown"]
        await wait_for_exit(process, within=TIMEOUT_SECONDS)


@contextmanager
def uvicorn_process(
    folder: Path, **settings: str
) -> "Iterator[tuple[subprocess.Popen[bytes], str]]":
    """Run `uvicorn markethall.asgi:app` with memory storage. Yield the process and its URL."""
    folder.mkdir()
    port, log = free_port(), folder / "serve.log"
    variables = environment(folder, storage="memory", bcrypt_cost="4", **settings)
    inherited = {name: value for name, value in os.environ.items() if "MARKETHALL" not in name}
    command = [sys.executable, "-m", "uvicorn", "markethall.asgi:app", "--port", str(port)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**inherited, **variables, "PYTHONPATH": "src"},
            stdout=output,
            stderr=output,
        )
    try:
        wait_until_ready(process, port, log)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def test_idle_server_stops_immediately(scratch: Path) -> None:
    with dedicated_process(scratch, "idle", "--memory") as (process, server):
        async with open_shop(server):
            process.terminate()

            assert await wait_for_exit(process, within=15) == 0  # less than shutdown_seconds (20)


async def test_shutdown_is_bounded_and_next_start_settles_open_payments(
    scratch: Path, server_url: str, template: str
) -> None:
    async with dedicated_database(server_url, template) as url:
        settings = {
            "database_url": url,
            "shutdown_seconds": "1",
            "payment_reconcile_after_seconds": "1",
        }
        with dedicated_process(scratch, "short-shutdown", **settings) as (process, server):
            async with open_shop(server) as shop, slow_payment(shop) as (buyer, payment_id, _):
                process.terminate()
                assert await wait_for_exit(process, within=TIMEOUT_SECONDS) == 0

        with dedicated_process(scratch, "short-shutdown", **settings) as (_, server):
            async with open_shop(server) as shop:
                path = f"/payments/{payment_id}"
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    while (
                        status := expect_status(await shop.get(path, buyer), 200)["status"]
                    ) not in {
                        "failed",
                        "captured",
                    }:
                        await asyncio.sleep(0.05)

    # The first process ended before the provider charged. The second process finds no charge and
    # fails the operation, so that the customer may pay again.
    assert status == "failed"


async def test_killed_worker_is_replaced(scratch: Path, server_url: str, template: str) -> None:
    async with dedicated_database(server_url, template) as url:
        with dedicated_process(scratch, "replaced", "--workers", "2", database_url=url) as (
            process,
            server,
        ):
            first = worker_pids(process.pid)
            os.kill(first[0], signal.SIGKILL)
            await wait_until(lambda: len(set(worker_pids(process.pid)) - set(first)) == 1)
            answers = [await get_on_new_connection(server, "/ready") for _ in range(20)]

            async with open_shop(server) as shop:
                await assert_order_can_be_paid(shop)
        assert [answer.status_code for answer in answers if answer is not None] == [200] * 20
        lines = server.log.read_text().splitlines()
        (died,) = [json.loads(line) for line in lines if "worker.died" in line]
        assert (died["pid"], died["level"]) == (first[0], "error")


async def test_deaths_in_a_row_leave_the_other_worker_serving(
    scratch: Path, server_url: str, template: str
) -> None:
    async with dedicated_database(server_url, template) as url:
        with dedicated_process(scratch, "deaths", "--workers", "2", database_url=url) as (
            process,
            server,
        ):
            survivor, *others = worker_pids(process.pid)
            for death in range(3):
                (victim,) = others
                os.kill(victim, signal.SIGKILL)
                await wait_until(partial(has_deaths, server, death + 1))
                answers = [await get_on_new_connection(server, "/health") for _ in range(10)]
                assert [answer.status_code for answer in answers if answer] == [200] * 10
                await wait_until(lambda: len(worker_pids(process.pid)) == 2)
                others = [pid for pid in worker_pids(process.pid) if pid != survivor]

            async with open_shop(server) as shop:
                await assert_order_can_be_paid(shop)


def test_pauses_between_restarts_grow_and_are_forgotten() -> None:
    now = 0.0
    pauses = RestartPauses(lambda: now)

    growing = [pauses.next_pause() for _ in range(8)]
    now = 61.0
    after_a_minute = pauses.next_pause()

    assert growing == [0, 1, 2, 4, 8, 16, 30, 30]
    assert after_a_minute == 0


async def test_leader_that_hangs_is_replaced_by_another_process(
    scratch: Path, server_url: str, template: str
) -> None:
    async with dedicated_database(server_url, template) as url:
        with (
            dedicated_process(scratch, "hangs", database_url=url) as (first, first_server),
            dedicated_process(scratch, "takes-over", database_url=url) as (_, server),
        ):
            assert first_server.has_logged("worker.leader_acquired")
            first.send_signal(signal.SIGSTOP)
            try:
                async with open_shop(server) as shop:
                    await assert_order_can_be_paid(shop)
            finally:
                first.send_signal(signal.SIGCONT)
        assert server.has_logged("worker.hung_leader_ended")


async def test_workers_do_not_outlive_their_parent(
    scratch: Path, server_url: str, template: str
) -> None:
    async with dedicated_database(server_url, template) as url:
        with dedicated_process(scratch, "orphans", "--workers", "2", database_url=url) as (
            process,
            server,
        ):
            workers = worker_pids(process.pid)
            process.kill()

            await wait_until(lambda: not any(is_alive(pid) for pid in workers))

            assert len(workers) == 2
            assert await get_on_new_connection(server, "/health") is None


async def test_workers_that_cannot_start_end_the_command(
    scratch: Path, server_url: str, template: str
) -> None:
    folder = scratch / "own-damaged"
    keys = folder / "keys"
    keys.mkdir(parents=True)
    (keys / "secret").write_text("short")
    log = folder / "serve.log"
    async with dedicated_database(server_url, template) as url:
        with log.open("ab") as output:
            variables = environment(folder, database_url=url)
            process = spawn(free_port(), variables, ("--workers", "2"), output)
            try:
                assert await wait_for_exit(process, within=START_TIMEOUT_SECONDS) == 1
            finally:
                end(process)
    assert "the secret" in log.read_text()


async def assert_order_can_be_paid(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product()
    order = expect_status(await shop.place(buyer, product["product_id"]), 201)
    expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    await shop.wait_for_status(buyer, order["order_id"], status="processing")


def has_deaths(server: RunningServer, count: int) -> bool:
    return server.log.read_text().count("worker.died") == count


def worker_pids(pid: int) -> list[int]:
    """Return the worker pids of a supervisor, without the resource tracker of multiprocessing."""
    return [child for child in children(pid) if b"spawn_main" in command_line(child)]


def children(pid: int) -> list[int]:
    return sorted(
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and process_stat(int(folder.name))[1:2] == [str(pid)]
    )


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    return process_stat(pid)[:1] not in ([], ["Z"])


def process_stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat, starting with the state; [] if there is no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
