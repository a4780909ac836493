"""Checks at intervals whether Redis answers, for a metric and one log line at each change."""

import asyncio
from typing import Final

import structlog

from markethall.shared.observability.metrics import REDIS_AVAILABLE
from markethall.shared.persistence.redis_client import RedisClient

log = structlog.get_logger("markethall.redis")

_INTERVAL_SECONDS: Final = 5.0


async def monitor_redis(redis: RedisClient, interval_seconds: float = _INTERVAL_SECONDS) -> None:
    """Ping Redis until cancelled, and log each change of its availability.

    Redis counts as available before the first ping, so a first ping that succeeds logs nothing.
    """
    was_available = True
    while True:
        is_available = await redis.ping()
        REDIS_AVAILABLE.set(is_available)
        if is_available != was_available:
            _log_change(is_available=is_available)
        was_available = is_available
        await asyncio.sleep(interval_seconds)


def _log_change(*, is_available: bool) -> None:
    if is_available:
        log.info("redis.available")
    else:
        log.warning("redis.unavailable", note="slower reads, limits per process, waiting events")
