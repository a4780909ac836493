"""Measures the speed and the memory of an import of a catalogue from a file.

A separate process imports into a new database, like `markethall import`: first a new catalogue,
then the same file again, then a file in which every price is changed.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from markethall.container import ApplicationContainer
from markethall.inventory.container import InventoryContainer
from markethall.inventory.imports.contract import ImportFormat, NewImport
from markethall.schema_migrations import upgrade
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import read_settings
from markethall.shared.idempotency.records import IdempotentCommand, StoredResponse
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.ids import new_id
from markethall.shared.observability import log

from . import servers, tables

HEADER: Final = ("import", "rows /s", "seconds", "cpu s", "idle MB", "peak MB over idle", "rows")
KINDS: Final = ("new", "unchanged", "changed")
MB: Final = 1024 * 1024
_WORDS: Final = (
    "linen", "wool", "cotton", "oak", "copper", "blue", "green", "slate", "sand", "garden",
    "kitchen", "travel",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    rows: int = 100_000


@dataclass
class ImportResult:
    options: Options
    runs: dict[str, dict[str, float]] = field(default_factory=dict)
    size: int = 0

    def text(self) -> str:
        return tables.text(self._rows()) + "\n" + "\n".join(self._remarks()) + "\n"

    def markdown(self) -> str:
        lines = "\n".join(f"- {line}" for line in self._remarks())
        return tables.markdown(self._rows()) + "\n" + lines + "\n"

    def write(self) -> None:
        """Write results/imports.json."""
        tables.write("imports", {"options": asdict(self.options), "runs": self.runs})

    def _rows(self) -> list[tuple[str, ...]]:
        return [HEADER, *(self._row(kind, run) for kind, run in self.runs.items())]

    def _row(self, kind: str, run: dict[str, float]) -> tuple[str, ...]:
        return (
            kind,
            f"{run['rows'] / run['seconds']:,.0f}",
            f"{run['seconds']:.1f}",
            f"{run['cpu']:.1f}",
            f"{run['idle'] / MB:.0f}",
            f"{(run['peak'] - run['idle']) / MB:.0f}",
            f"{run['rows']:,.0f}",
        )

    def _remarks(self) -> Iterator[str]:
        yield f"CSV of {self.size / MB:.0f} MB; figures without the upload"
        yield tables.machine_line()


def measure(options: Options, folder: Path) -> ImportResult:
    """Run the measurement. Raises StartFailed, CalledProcessError."""
    result = ImportResult(options)
    with servers.database(folder / "database") as url:
        upgrade(url)
        for kind in KINDS:
            path = folder / f"{kind}.csv"
            path.write_text("".join(lines(options.rows, 7 if kind == "changed" else 0)))
            result.size = path.stat().st_size
            result.runs[kind] = _run(url, path, folder)
    return result


def lines(rows: int, price_offset: int) -> Iterator[str]:
    yield "sku,name,description,price,currency,category,tags,options,on_hand\r\n"
    for n in range(rows):
        first, second = _WORDS[n % 12], _WORDS[n // 12 % 12]
        yield (
            f"BENCH-{n:07d},{first.title()} {second} {n % 997},"
            f'"A {first} thing of {second}, number {n}, made to be measured.",'
            f'{n % 200 + price_offset}.90,EUR,{second},"{first},{second}",'
            f'"{{""size"":""{n % 9}""}}",{n % 50}\r\n'
        )


def _run(url: str, path: Path, folder: Path) -> dict[str, float]:
    environment = os.environ | {
        "MARKETHALL_DATABASE_URL": url,
        "MARKETHALL_DATA_DIR": str(folder / "application"),
        "MARKETHALL_DATABASE_TIMEOUT": "10",
    }
    command = [sys.executable, "-m", "bench.imports", str(path)]
    # pinned to the core that the database does not use
    with servers.pinned(servers.SERVER):
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout.splitlines()[-1]))


# The measured process: `python -m bench.imports FILE`


async def _import(path: Path) -> dict[str, float]:
    settings = read_settings()
    container = ApplicationContainer(settings, load_or_create_secrets(settings))
    inventory = container.context("inventory", InventoryContainer)
    imports, worker = inventory.imports(), inventory.import_worker()
    ctx = system_context("bench")
    upload = await imports.upload(ctx, _chunks(path))
    command = NewImport(sha256=upload.sha256, format=ImportFormat.CSV)
    idempotent_command = IdempotentCommand("", new_id(), timedelta(days=1), _to_response)
    job = await imports.start_import(ctx, upload, command, idempotent_command)
    idle, started, cpu = _memory("VmRSS"), time.perf_counter(), time.process_time()
    done = await worker.process_next(job.import_id)
    assert done
    result = {
        "rows": done.rows.read,
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "idle": idle,
        "peak": _memory("VmHWM"),
        "failed": done.rows.failed,
    }
    await container.close()
    return result


def _to_response(_: Any) -> StoredResponse:
    return StoredResponse(status=202, body="")


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(65_536):
            yield chunk


def _memory(name: str) -> float:
    text = Path("/proc/self/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith(name))
    return float(line.split()[1]) * 1024


if __name__ == "__main__":
    log.configure("json", "warning")
    print(json.dumps(asyncio.run(_import(Path(sys.argv[1])))))
