"""A Redis client that records each command as a span of OpenTelemetry."""

from collections.abc import Sequence
from typing import Any

from markethall.shared.observability.opentelemetry import client_span
from markethall.shared.persistence.redis_client import CommandArgument, LuaScript, RedisClient


class TracedRedisClient(RedisClient):
    """The spans have the names of the commands, never their arguments."""

    async def execute(self, *command: CommandArgument, deadline: float | None = None) -> Any:
        with client_span(str(command[0]), db_system="redis"):
            return await super().execute(*command, deadline=deadline)

    async def run_script(
        self,
        script: LuaScript,
        keys: Sequence[CommandArgument],
        *args: CommandArgument,
        deadline: float | None = None,
    ) -> Any:
        with client_span("EVALSHA", db_system="redis"):
            return await super().run_script(script, keys, *args, deadline=deadline)
