"""A server that kills itself at a planned write, and restarts on the same port and database."""

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.e2e.dedicated_server import DatabaseReader, dedicated_database, environment
from tests.e2e.servers import (
    ADMIN,
    CONTEXTS,
    RunningServer,
    end,
    free_port,
    spawn,
    wait_until_ready,
)
from tests.e2e.shop import Person, Shop
from tests.progress import progress_limit

FAST_RETRY_SETTINGS = {
    "idempotency_lease": "0.5",
    "payment_reconcile_after_seconds": "1",
    "database_pool_min": "1",
}
TIMEOUT_SECONDS = 90
# makes the events of killed handlers due at once, so that no test waits until their leases expire
MAKE_RETRIES_DUE = "UPDATE orders.inbox SET due_at = now() WHERE state = 'waiting'"


class RestartableServer:
    def __init__(
        self,
        folder: Path,
        database_url: str,
        server_database_url: str | None = None,
        **settings: str,
    ) -> None:
        """`server_database_url` is the URL that the server uses, by default `database_url`."""
        folder.mkdir(exist_ok=True)
        self._port = free_port()
        self._log = folder / "serve.log"
        self._plan = folder / "plan"
        # a full run takes longer than the default lifetime of a token
        settings = FAST_RETRY_SETTINGS | {"token_ttl": "7200"} | settings
        self._environment = environment(
            folder, database_url=server_database_url or database_url, **settings
        )
        self._serial = 0
        self.database = DatabaseReader(database_url)
        self.restarts = 0
        self.makes_retries_due = True
        self.clear_kill_plan()
        self._process = self._start()

    @property
    def server(self) -> RunningServer:
        url = f"http://127.0.0.1:{self._port}"
        return RunningServer(dict.fromkeys(CONTEXTS, url), (self._process.pid,), self._log)

    @property
    def has_exited(self) -> bool:
        return self._process.poll() is not None

    def kill_at_write(self, number: int, moment: str) -> None:
        """Plan a SIGKILL at the write with this number; `moment` is "before" or "after"."""
        self._serial += 1
        self._plan.write_text(f"{self._serial} {number} {moment}")

    def clear_kill_plan(self) -> None:
        self._plan.write_text("")

    def written_since_plan(self) -> list[str]:
        """Return the writes since the last plan, in order."""
        lines = self._plan.with_suffix(".trace").read_text().splitlines()
        writes = [line.split(" ", 2) for line in lines if line.startswith(f"{self._serial} ")]
        return [write for _, _, write in writes]

    async def restart(self) -> None:
        """Start the server again after it has exited."""
        await asyncio.to_thread(self._process.wait, TIMEOUT_SECONDS)
        self.clear_kill_plan()
        self.restarts += 1
        self._process = await asyncio.to_thread(self._start)
        if self.makes_retries_due:
            await self.database.fetch_all(MAKE_RETRIES_DUE)

    def end(self) -> None:
        end(self._process)

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as output:
            program = ("tests.e2e.crash_injector", str(self._plan))
            process = spawn(self._port, self._environment, (), output, program)
        wait_until_ready(process, self._port, self._log)
        return process


class RetryingShop(Shop):
    """A shop client that restarts a killed server and repeats the request with the same key."""

    def __init__(self, restartable: RestartableServer, http: httpx2.AsyncClient) -> None:
        super().__init__(restartable.server, http)
        self.restartable = restartable

    async def send(
        self, method: str, path: str, person: Person | None = None, **options: Any
    ) -> httpx2.Response:
        restarts = 0
        async with progress_limit(TIMEOUT_SECONDS) as limit:
            while True:
                try:
                    answer = await super().send(method, path, person, **options)
                except httpx2.TransportError:
                    await self.restartable.restart()
                    restarts += 1
                    limit.note(restarts)
                    continue
                limit.note((restarts, answer.status_code))
                if answer.status_code < 400 or not answer.json()["retryable"]:
                    return answer
                await asyncio.sleep(0.05)


@asynccontextmanager
async def open_restartable_server(
    scratch: Path, database_url: str, server_database_url: str | None = None, **settings: str
) -> AsyncIterator[RestartableServer]:
    folder = scratch / f"restartable-{secrets.token_hex(4)}"
    # in a thread, because the server may wait for a proxy on this event loop
    restartable = await asyncio.to_thread(
        RestartableServer, folder, database_url, server_database_url, **settings
    )
    try:
        yield restartable
    finally:
        await asyncio.to_thread(restartable.end)


@asynccontextmanager
async def open_retrying_shop(
    scratch: Path, server_url: str, template: str, **settings: str
) -> AsyncIterator[RetryingShop]:
    """Start a restartable server on a database of its own; the admin is signed in."""
    async with (
        dedicated_database(server_url, template) as url,
        open_restartable_server(scratch, url, **settings) as restartable,
        httpx2.AsyncClient(timeout=20) as http,
    ):
        shop = RetryingShop(restartable, http)
        await shop.sign_in_admin(*ADMIN)
        yield shop
