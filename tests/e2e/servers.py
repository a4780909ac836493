"""Starts `markethall serve` as a process, and describes the running server by its URLs."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx2

from markethall.contexts import context_names, topology

ADMIN = ("admin@markethall.example", "an-admin-password-for-tests")
CONTEXTS = tuple(context for context in context_names())
START_TIMEOUT_SECONDS = 180
_RESERVED_SOCKETS: list[socket.socket] = []


@dataclass(frozen=True)
class RunningServer:
    """The URLs of the contexts, the process ids and the logs of a running application."""

    urls: Mapping[str, str]
    pids: tuple[int, ...]
    log: Path
    # signs webhooks; if it is empty, the secret is in the data directory, beside the log
    secret: str = field(default="", repr=False)
    # the logs of the other processes of a split cluster
    other_logs: tuple[Path, ...] = ()

    def has_logged(self, event: str) -> bool:
        """Return whether any of its processes has logged the event."""
        return any(event in log.read_text() for log in (self.log, *self.other_logs))

    def url(self, path: str) -> str:
        return self.urls[owning_context(path)] + path


def owning_context(path: str) -> str:
    """Return the context that owns the path; `users` for a path that every process serves."""
    return topology().context_by_path.get(path.split("/")[1].partition("?")[0], "users")


def free_port() -> int:
    """Return a free port, and reserve it with a socket that stays open.

    While the socket is open, a program without SO_REUSEADDR cannot get the port. A server can bind
    it, because servers set SO_REUSEADDR, too.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    _RESERVED_SOCKETS.append(reserved)
    port: int = reserved.getsockname()[1]
    return port


@contextmanager
def running(
    folder: Path,
    environment: Mapping[str, str],
    *arguments: str,
    port: int | None = None,
    program: tuple[str, ...] = ("markethall",),
) -> Iterator[RunningServer]:
    """Run `markethall serve` during the block, which starts when the server is ready.

    `program` is another module that has the command `serve`, with the module's own arguments.
    """
    port = port or free_port()
    log = folder / f"serve-{port}.log"
    with log.open("ab") as output:
        process = spawn(port, environment, arguments, output, program)
        try:
            wait_until_ready(process, port, log)
            address = f"http://127.0.0.1:{port}"
            yield RunningServer(dict.fromkeys(CONTEXTS, address), (process.pid,), log)
        finally:
            end(process)


def spawn(
    port: int,
    environment: Mapping[str, str],
    arguments: tuple[str, ...],
    output: IO[bytes],
    program: tuple[str, ...] = ("markethall",),
) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", *program, "serve", "--port", str(port), *arguments]
    settings = {
        "MARKETHALL_BCRYPT_COST": "4",
        "MARKETHALL_RATE_LIMITS": "off",
        "MARKETHALL_LOG_FORMAT": "json",
        "MARKETHALL_ADMIN_EMAIL": ADMIN[0],
        "MARKETHALL_ADMIN_PASSWORD": ADMIN[1],
        # high, so that tests of races get no 503; tests of overload set other values
        "MARKETHALL_MAX_CONCURRENT_REQUESTS": "1000",
        # long timeouts for slow machines; tests of timeouts set other values
        "MARKETHALL_REQUEST_DEADLINE_SECONDS": "30",
        "MARKETHALL_RPC_ATTEMPT_TIMEOUT_SECONDS": "10",
        "MARKETHALL_DATABASE_TIMEOUT": "20",
    }
    inherited = {name: value for name, value in os.environ.items() if "MARKETHALL" not in name}
    return subprocess.Popen(
        command,
        env={**inherited, **settings, **environment, "PYTHONPATH": "src"},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/ready", timeout=2).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"the server did not start:\n{log.read_text()[-4000:]}")


def end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError("the server did not stop within 30 s of SIGTERM") from None


async def restricted_urls(server: str, database: str, execute: "Execute") -> dict[str, str]:
    """Create a database role for each context. Return one database URL per context.

    Each role may use only the schema of its context.
    """
    urls = {}
    for context in CONTEXTS:
        role, password = f"{context}_{secrets.token_hex(4)}", secrets.token_hex(16)
        await execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        await execute(f"GRANT USAGE ON SCHEMA {context} TO {role}")
        await execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {context} TO {role}"
        )
        await execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {context} TO {role}")
        host = server.rpartition("@")[2].partition("/")[0]
        urls[context] = f"postgresql://{role}:{password}@{host}/{database}"
    return urls


class Execute:
    """A callable that runs one SQL statement as the owner of the database."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __call__(self, sql: str) -> None:
        from tests.conftest import on_server

        await on_server(self._url, sql)


def as_json(urls: Mapping[str, str]) -> str:
    return json.dumps(dict(urls))
