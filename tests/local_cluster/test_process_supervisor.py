"""Test the environment and the shutdown of services, and the prefix of their log lines."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from markethall.contexts import context_names, topology
from markethall.local.cluster.process_supervisor import (
    STOP_ORDER,
    ServiceSupervisor,
    environment_of,
    free_urls,
    prefix_log_line,
)
from markethall.local.cluster.reverse_proxy import ReverseProxy
from markethall.settings import Settings, read_settings
from tests.e2e.test_shutdown import wait_until
from tests.local_cluster.cluster_process import remaining_processes
from tests.test_cli import markethall

URLS = {context: f"http://127.0.0.1:{port}" for port, context in enumerate(context_names(), 9001)}
# the connection limit of the embedded Postgres
MAX_CONNECTIONS = 100


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings(data_dir=tmp_path, trusted_proxies="192.0.2.0/24")


def settings_of_service(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, context: str, **shell: str
) -> Settings:
    """Return the settings that a service reads from its environment.

    `shell` adds settings to the environment of the cluster itself.
    """
    shell = {"redis_url": "redis://127.0.0.1:1", "database_url": "postgresql://x@y/z", **shell}
    for name, value in shell.items():
        monkeypatch.setenv(f"MARKETHALL_{name.upper()}", value)
    environment = environment_of(context, settings, URLS)
    for name in [name for name in os.environ if name.startswith("MARKETHALL_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return read_settings()


@pytest.mark.parametrize(
    ("context", "remotes"),
    [
        ("orders", {"users", "inventory", "payments"}),
        ("users", {"orders"}),
        ("inventory", {"users", "orders"}),
        ("payments", {"users", "orders"}),
    ],
)
def test_each_service_serves_one_context_and_knows_its_dependencies(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, context: str, remotes: set[str]
) -> None:
    found = settings_of_service(monkeypatch, settings, context)

    assert found.contexts == {context}
    assert found.context_urls == {name: URLS[name] for name in remotes}
    assert found.data_directory == settings.data_directory


def test_services_do_not_listen_on_metrics_port_of_proxy(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    found = settings_of_service(monkeypatch, settings, "orders", metrics_port="9464")

    assert found.metrics_port is None


def test_pools_of_all_services_and_a_command_fit_the_embedded_server(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    sizes = [
        settings_of_service(monkeypatch, settings, context).database_pool_max + 1
        for context in context_names()
    ]
    command = settings.database_pool_max + 1

    assert sum(sizes) + command <= MAX_CONNECTIONS


def test_the_shell_may_set_the_pool_size(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    found = settings_of_service(monkeypatch, settings, "users", database_pool_max="3")

    assert found.database_pool_max == 3


def test_services_trust_the_proxy_only(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    found = settings_of_service(monkeypatch, settings, "users")

    assert found.trusted_proxies == ("127.0.0.1/32",)


def test_a_caller_stops_before_the_services_that_it_calls() -> None:
    step_of = {context: step for step, contexts in enumerate(STOP_ORDER) for context in contexts}

    assert set(step_of) == set(context_names())
    for caller, called in topology().dependencies.items():
        assert all(step_of[caller] < step_of[context] for context in called)


async def test_all_services_stop_and_a_suspended_one_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MARKETHALL_DATABASE_URL", "postgresql://user@127.0.0.1:1/unreachable")
    monkeypatch.setenv("MARKETHALL_REDIS_URL", "redis://127.0.0.1:1")
    settings, urls = read_settings(data_dir=tmp_path, shutdown_seconds=1), free_urls()
    supervisor = ServiceSupervisor(settings, urls, ReverseProxy(urls, settings), report=print)
    processes = {context: await service.start() for context, service in supervisor.services.items()}
    suspended = processes["payments"].pid
    os.kill(suspended, signal.SIGSTOP)
    await wait_until(lambda: psutil.Process(suspended).status() == psutil.STATUS_STOPPED)

    await supervisor.stop()

    codes = {context: process.returncode for context, process in processes.items()}
    assert codes.pop("payments") == -signal.SIGKILL
    assert -signal.SIGKILL not in codes.values()
    assert remaining_processes([process.pid for process in processes.values()]) == []


async def test_a_service_that_cannot_start_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MARKETHALL_DATABASE_URL", "not a URL")
    settings, urls = read_settings(data_dir=tmp_path, database_url=""), free_urls()
    reports: list[str] = []
    supervisor = ServiceSupervisor(settings, urls, ReverseProxy(urls, settings), reports.append)

    async with asyncio.timeout(60):
        await supervisor.supervise()
    await supervisor.stop()

    assert supervisor.exit_code == 2
    assert "cannot start: ended with exit code 2" in reports[0]


def test_a_log_line_names_its_service() -> None:
    line = prefix_log_line("orders", b'{"event":"request","context":"system"}\n')
    other = prefix_log_line("users", b"Traceback (most recent call last):\n")

    assert json.loads(line) == {"service": "orders", "event": "request", "context": "system"}
    assert other == b"users     | Traceback (most recent call last):\n"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"contexts": "inventory"}, "MARKETHALL_CONTEXTS"),
        (
            {"context_urls": '{"users": "http://x"}', "contexts": "inventory"},
            "MARKETHALL_CONTEXT_URLS",
        ),
        ({"storage": "memory"}, "MARKETHALL_STORAGE: memory cannot be shared"),
        ({"environment": "production"}, "MARKETHALL_SECRET_KEY: is required in production"),
    ],
)
def test_unsupported_settings_are_one_line_each_and_exit_code_two(
    environment: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    result = markethall("local-cluster", "--port", "0", data_dir=str(tmp_path), **environment)

    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert any(expected in line for line in lines), result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
