"""What each of the four processes is told, and how what they say is told apart."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from markethall.apart.stalls import ENDING, Stalls, environment_of, marked
from markethall.settings import Settings, read_settings
from markethall.topology import NEEDS, Context
from tests.apart.running import survivors
from tests.test_cli import markethall

ADDRESSES = {context: f"http://127.0.0.1:{port}" for port, context in enumerate(Context, 9001)}
# as many as the embedded Postgres takes
CONNECTIONS = 100


@pytest.fixture
def given(tmp_path: Path) -> Settings:
    return read_settings(data_dir=tmp_path, trusted_proxies="192.0.2.0/24")


def told(
    monkeypatch: pytest.MonkeyPatch, given: Settings, context: Context, **shell: str
) -> Settings:
    """The settings that a service reads from the environment it is given."""
    shell = {"redis_url": "redis://127.0.0.1:1", "database_url": "postgresql://x@y/z", **shell}
    for name, value in shell.items():
        monkeypatch.setenv(f"MARKETHALL_{name.upper()}", value)
    environment = environment_of(context, given, ADDRESSES)
    for name in [name for name in os.environ if name.startswith("MARKETHALL_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return read_settings()


@pytest.mark.parametrize(
    ("context", "neighbours"),
    [
        (Context.ORDERS, {Context.USERS, Context.INVENTORY, Context.PAYMENTS}),
        (Context.USERS, {Context.ORDERS}),
        (Context.INVENTORY, {Context.USERS, Context.ORDERS}),
        (Context.PAYMENTS, {Context.USERS, Context.ORDERS}),
    ],
)
def test_each_serves_one_context_and_finds_whom_it_needs(
    monkeypatch: pytest.MonkeyPatch,
    given: Settings,
    context: Context,
    neighbours: set[Context],
) -> None:
    settings = told(monkeypatch, given, context)

    assert settings.serve == {context}
    assert settings.remotes == {name: ADDRESSES[name] for name in neighbours}
    assert settings.home == given.home


def test_all_four_fit_the_embedded_server_and_a_command_beside_them(
    monkeypatch: pytest.MonkeyPatch, given: Settings
) -> None:
    four = [told(monkeypatch, given, context).database_pool_max + 1 for context in Context]
    command = given.database_pool_max + 1

    assert sum(four) + command <= CONNECTIONS


def test_the_shell_may_size_the_pools(monkeypatch: pytest.MonkeyPatch, given: Settings) -> None:
    assert told(monkeypatch, given, Context.USERS, database_pool_max="3").database_pool_max == 3


def test_the_front_is_believed_and_whoever_the_front_believes(
    monkeypatch: pytest.MonkeyPatch, given: Settings
) -> None:
    settings = told(monkeypatch, given, Context.USERS)

    assert settings.trusted_proxies == ("127.0.0.1/32", "192.0.2.0/24")


def test_whoever_calls_another_ends_before_it() -> None:
    ends = {context: step for step, together in enumerate(ENDING) for context in together}

    assert set(ends) == set(Context)
    for caller, needed in NEEDS.items():
        assert all(ends[caller] < ends[context] for context in needed)


def test_all_end_in_order_and_one_that_is_stopped_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MARKETHALL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("MARKETHALL_REDIS_URL", "redis://127.0.0.1:1")
    stalls = Stalls(read_settings(data_dir=tmp_path, shutdown_seconds=1), say=print)
    stalls.start()
    pids = {context: seat.pid or 0 for context, seat in stalls.seats().items()}
    os.kill(pids[Context.PAYMENTS], signal.SIGSTOP)
    until_it_is_stopped(pids[Context.PAYMENTS])

    stalls.end()

    how = {context: stall.exit_code for context, stall in stalls.all.items()}
    assert how.pop(Context.PAYMENTS) == -signal.SIGKILL
    assert -signal.SIGKILL not in how.values()
    assert survivors(list(pids.values())) == []


def until_it_is_stopped(pid: int) -> None:
    """Of two signals that wait for a process the one to end it comes first."""
    for _ in range(6000):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T":
            return
        time.sleep(0.005)  # looks again; nothing hangs on the length
    raise AssertionError("it goes on")


def test_lines_are_told_apart() -> None:
    line = marked(Context.ORDERS, b'{"event":"request","context":"system"}\n')
    other = marked(Context.USERS, b"Traceback (most recent call last):\n")

    said = json.loads(line)
    assert said == {"service": "orders", "event": "request", "context": "system"}
    assert other == b"users     | Traceback (most recent call last):\n"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"serve": "users"}, "MARKETHALL_SERVE"),
        ({"remotes": '{"users": "http://x"}', "serve": "inventory"}, "MARKETHALL_REMOTES"),
        ({"storage": "memory"}, "MARKETHALL_STORAGE: memory is not shared"),
        ({"environment": "production"}, "MARKETHALL_SECRET: is required in production"),
    ],
)
def test_what_does_not_go_together_is_one_line_each_and_exit_code_two(
    environment: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    done = markethall("apart", "--port", "0", data_dir=str(tmp_path), **environment)

    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert any(expected in line for line in lines), done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
