"""A hall that dies when it is told to, and is started again: same address, same database."""

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.e2e.halls import CONTEXTS, Hall, end, free_port, spawn, wait_until_ready
from tests.e2e.own import Books, environment
from tests.e2e.shop import Person, Shop

HASTE = {"idempotency_lease": "0.5", "reconcile_after": "1", "database_pool_min": "1"}
PATIENCE = 90
# a delivery whose handler died is tried again when its lease has run out: we move the clock
HASTEN = "UPDATE orders.inbox SET due_at = now() WHERE state = 'waiting'"


class Mortal:
    def __init__(self, folder: Path, database_url: str, **settings: str) -> None:
        folder.mkdir(exist_ok=True)
        self._port = free_port()
        self._log = folder / "serve.log"
        self._plan = folder / "plan"
        self._environment = environment(folder, database_url=database_url, **HASTE | settings)
        self._serial = 0
        self.books = Books(database_url)
        self.deaths = 0
        self.hasty = True
        self.spare()
        self._process = self._started()

    @property
    def hall(self) -> Hall:
        url = f"http://127.0.0.1:{self._port}"
        return Hall(dict.fromkeys(CONTEXTS, url), (self._process.pid,), self._log)

    @property
    def dead(self) -> bool:
        return self._process.poll() is not None

    def doom(self, number: int, moment: str) -> None:
        """To die before or after the so manieth write from now on."""
        self._serial += 1
        self._plan.write_text(f"{self._serial} {number} {moment}")

    def spare(self) -> None:
        self._plan.write_text("")

    def trace(self) -> list[str]:
        """What was written since the last doom, in its order."""
        lines = self._plan.with_suffix(".trace").read_text().splitlines()
        mine = [line.split(" ", 2) for line in lines if line.startswith(f"{self._serial} ")]
        return [what for _, _, what in mine]

    async def revive(self) -> None:
        """Once it is dead."""
        await asyncio.to_thread(self._process.wait, PATIENCE)
        self.spare()
        self.deaths += 1
        self._process = await asyncio.to_thread(self._started)
        if self.hasty:
            await self.books.all(HASTEN)

    def end(self) -> None:
        end(self._process)

    def _started(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as output:
            program = ("tests.e2e.crash", str(self._plan))
            process = spawn(self._port, self._environment, (), output, program)
        wait_until_ready(process, self._port, self._log)
        return process


class Patient(Shop):
    """A shop whose clients try again, with the same key, until they have an answer."""

    def __init__(self, mortal: Mortal, http: httpx2.AsyncClient) -> None:
        super().__init__(mortal.hall, http)
        self.mortal = mortal

    async def send(
        self, method: str, path: str, who: Person | None = None, **options: Any
    ) -> httpx2.Response:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    answer = await super().send(method, path, who, **options)
                except httpx2.TransportError:
                    await self.mortal.revive()
                    continue
                if answer.status_code < 400 or not answer.json()["retryable"]:
                    return answer
                await asyncio.sleep(0.05)


@asynccontextmanager
async def mortal_hall(scratch: Path, database_url: str, **settings: str) -> AsyncIterator[Mortal]:
    mortal = Mortal(scratch / f"mortal-{secrets.token_hex(4)}", database_url, **settings)
    try:
        yield mortal
    finally:
        mortal.end()
