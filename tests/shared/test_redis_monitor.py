"""Test the metric and the log lines if Redis is unavailable at the start or later."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from markethall.local.valkey import EmbeddedValkey
from markethall.shared.observability.metrics import REGISTRY
from markethall.shared.persistence import redis_client
from markethall.shared.persistence.redis_client import RedisClient, monitor_redis


@pytest.fixture(autouse=True)
def fresh_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a logger that has not cached the configuration of other tests."""
    monkeypatch.setattr(redis_client, "log", structlog.get_logger("markethall.redis"))


@asynccontextmanager
async def monitored(url: str) -> AsyncIterator[None]:
    redis = RedisClient(url, timeout=30)
    task = asyncio.create_task(monitor_redis(redis, interval_seconds=0.01))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await redis.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def available() -> float | None:
    return REGISTRY.get_sample_value("markethall_redis_available")


def events(lines: list[Any]) -> list[str]:
    return [line["event"] for line in lines]


async def test_redis_that_is_away_at_start_gets_one_warning() -> None:
    server = EmbeddedValkey()
    with server as url:
        pass

    with capture_logs() as lines:
        async with monitored(url):
            await until(lambda: bool(lines))
            for _ in range(20):
                await asyncio.sleep(0.01)

    assert events(lines) == ["redis.unavailable"]
    assert lines[0]["log_level"] == "warning"
    assert available() == 0


async def test_redis_that_answers_at_start_gets_no_line() -> None:
    with EmbeddedValkey() as url, capture_logs() as lines:
        async with monitored(url):
            await until(lambda: available() == 1)

    assert events(lines) == []


async def test_restarted_redis_is_available_again() -> None:
    server = EmbeddedValkey(on_failure=lambda: None)
    with server as url, capture_logs() as lines:
        async with monitored(url):
            await until(lambda: available() == 1)
            assert server.pid
            killed = server.pid
            os.kill(killed, signal.SIGKILL)
            await until(lambda: available() == 0)
            await until(lambda: available() == 1)

    assert [event for event in events(lines) if event.startswith("redis.")] == [
        "redis.unavailable",
        "redis.available",
    ]
