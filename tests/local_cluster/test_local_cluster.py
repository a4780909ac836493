"""`markethall apart` from outside: one address, four services, and an end that leaves nothing."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.apart.running import Running, apart, settings, started, survivors
from tests.e2e.halls import ADMIN, CONTEXTS
from tests.e2e.own import ended
from tests.e2e.shop import Shop, good, refused
from tests.e2e.test_shutdown import until

NAMES = ("front", *CONTEXTS)
# what is asked while inventory is away, besides what it answers itself
STILL = ("/users/me", "/ready")
# four services, Postgres and Valkey, and the front
FEWEST = 7


@pytest.fixture(scope="module")
def running(scratch: Path) -> Iterator[Running]:
    with apart(scratch / "apart-one") as found:
        yield found


@pytest.fixture
async def shop(running: Running) -> AsyncIterator[Shop]:
    async with httpx2.AsyncClient(timeout=20) as http:
        shop = Shop(running.hall, http)
        await shop.sign_in_admin(*ADMIN)
        yield shop


async def test_an_order_is_placed_paid_and_fulfilled_through_one_address(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=5)

    order = good(await shop.place(buyer, product["product_id"], 2), 201)
    good(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    await shop.until(buyer, order["order_id"], status="processing", payment_status="paid")
    path, parcel = (
        f"/orders/{order['order_id']}/fulfilments",
        {"carrier": "X", "tracking_number": "1"},
    )
    sent = good(await shop.post(path, shop.admin, json=parcel), 201)
    good(await shop.post(f"/fulfilments/{sent['fulfilment_id']}/deliver", shop.admin), 200)
    await shop.until(buyer, order["order_id"], status="completed")

    await shop.until_available(product["product_id"], 3)


async def test_the_banner_says_who_runs_where(running: Running) -> None:
    pids = {name: running.pid_of(name) for name in NAMES}

    assert pids.pop("front") == running.process.pid
    assert set(pids.values()) < set(running.family)
    for context, pid in pids.items():
        command = command_of(pid)
        address = f"http://127.0.0.1:{command[command.index('--port') + 1]}"
        assert "markethall" in command
        assert f"{pid:<8}{address}" in running.said
        assert f"{context:11}pid" in running.said


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


async def test_lines_say_which_service_wrote_them_and_who_asked(running: Running) -> None:
    made_up = {"X-Request-ID": "told-apart-01", "X-Forwarded-For": "203.0.113.9"}
    from_elsewhere = httpx2.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx2.AsyncClient(base_url=running.url, transport=from_elsewhere) as http:
        await http.get("/products", headers=made_up)

    line = await line_of(running, "told-apart-01")

    assert (line["service"], line["context"], line["path"]) == ("inventory",) * 2 + ("/products",)
    assert line["client_ip"] == "127.0.0.2"
    services = {json.loads(text).get("service") for text in running.lines}
    assert set(CONTEXTS) <= services


async def line_of(running: Running, request_id: str) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        lines = [json.loads(text) for text in running.lines if request_id in text]
        return [line for line in lines if line.get("request_id") == request_id]

    await until(found)
    (line,) = found()
    return line


async def test_counts_of_all_are_for_those_who_may_see_them(shop: Shop) -> None:
    buyer = await shop.customer()
    await shop.product()

    stats = good(await shop.get("/stats", shop.admin), 200)

    assert set(stats) == {"user_count", "product_count", "order_count", "payment_count"}
    assert stats["user_count"] >= 2
    assert stats["product_count"] >= 1
    assert None not in stats.values()
    refused(await shop.get("/stats"), 401, "auth.unauthenticated")
    refused(await shop.get("/stats", buyer), 403, "auth.forbidden")


async def test_commands_work_beside_it(running: Running, shop: Shop) -> None:
    demo = beside(running, "demo")
    staff = beside(running, "create-staff", "clerk@example.com", "--password-stdin")

    assert demo.stdout.strip() == "24 products added.", demo.stderr
    assert "is staff now" in staff.stdout, staff.stderr
    listed = good(await shop.get("/products?limit=100"), 200)["items"]
    assert len(listed) >= 24
    clerk = await shop.sign_in("clerk@example.com", "a long enough sentence")
    assert clerk["access_token"]


def beside(running: Running, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "markethall", *arguments],
        env=settings(running.folder),
        input="a long enough sentence\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


async def test_a_killed_service_comes_back_and_in_the_end_all_of_it_is_gone(scratch: Path) -> None:
    with apart(scratch / "apart-two") as running:
        await loses_and_regains_its_inventory(running)
        family = running.family

        running.process.send_signal(signal.SIGINT)

        assert await ended(running.process, within=60) == 0
        assert len(family) >= FEWEST
        assert survivors(family) == []
        assert "Traceback" not in running.said


async def loses_and_regains_its_inventory(running: Running) -> None:
    killed = running.pid_of("inventory")
    os.kill(killed, signal.SIGKILL)
    await until(lambda: not survivors([killed]))
    async with httpx2.AsyncClient(base_url=running.url, timeout=20) as http:
        gone, other, all_of_it = [await http.get(path) for path in ("/products", *STILL)]
        async with asyncio.timeout(60):
            while (await http.get("/ready")).status_code != 200:
                await asyncio.sleep(0.05)
        back = await http.get("/products")

    assert refused(gone, 503, "system.unavailable")["details"] == {"dependency": "inventory"}
    refused(other, 401, "auth.unauthenticated")
    assert refused(all_of_it, 503, "system.not_ready")["details"] == {"failing": ["inventory"]}
    assert back.status_code == 200
    assert "inventory was ended by SIGKILL; it starts again in" in running.said
    await until(lambda: "inventory is back: pid" in running.said)


async def test_nothing_outlives_it_when_it_is_killed(scratch: Path) -> None:
    """Not even a service that is stopped, and heeds no signal but the last."""
    with apart(scratch / "apart-three") as running:
        family = running.family
        os.kill(running.pid_of("payments"), signal.SIGSTOP)

        running.process.kill()

        await until(lambda: not survivors(family))
        assert len(family) >= FEWEST


async def test_a_service_that_cannot_start_ends_the_whole_and_says_why(scratch: Path) -> None:
    folder = scratch / "apart-four"
    keys = folder / "data" / "keys"
    keys.mkdir(parents=True)
    (keys / "secret").write_text("damaged")

    with started(folder) as running:
        code = await ended(running.process, within=120)

    assert code == 2
    assert "cannot start:" in running.said
    assert "error: MARKETHALL_DATA_DIR: the secret in" in running.said
    assert "Traceback" not in running.said


async def test_a_taken_port_is_said_in_one_line(scratch: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        started(scratch / "apart-four", port=taken.getsockname()[1]) as running,
    ):
        code = await ended(running.process, within=60)

    assert code == 1
    assert "error:" in running.said
    assert "Traceback" not in running.said
