"""A process that publishes and hears the probe's events over a stream: python -m … DB REDIS.

Everything is the product's own but the handler, which notes each event once.
"""

import asyncio
import sys

from markethall.shared.clock import utc_now
from markethall.shared.db import PoolSize, Postgres
from markethall.shared.events import Delivery, DirectPipe
from markethall.shared.redis import RedisClient
from markethall.shared.sql import sql_backend
from markethall.shared.steward import Pace, Processor, Relay, Steward
from markethall.shared.streams import StreamPipe, StreamReader
from tests.shared.conftest import STATEMENTS, ProbeSqlStore, ThingHappened

HANDLER = "probe.note_thing"
# short leases: who was killed is not waited for
PACE = Pace(poll=0.02, tend=0.1, retry_lead=0.05, lease=0.5, batch=20)


async def listen(database_url: str, redis_url: str) -> None:
    postgres = Postgres(database_url, PoolSize(least=1, most=10, timeout=5))
    backend = sql_backend(postgres, STATEMENTS, ProbeSqlStore, utc_now)
    redis = RedisClient(redis_url, timeout=1.0)

    async def note(delivery: Delivery, event: ThingHappened) -> None:
        async with backend.database.transaction() as store:
            if await store.handled(delivery):
                await store.add(f"{event.thing}/{event.number}", event.number)

    into = DirectPipe(backend.inbox, {ThingHappened.type: [HANDLER]})
    stream = StreamPipe("probe", {"probe": frozenset({ThingHappened.type})}, redis, utc_now)
    steward = Steward(
        "probe",
        backend.outbox,
        Relay("probe", [], utc_now, [stream]),
        Processor(backend.inbox, {HANDLER: note}, utc_now, PACE),
        [],
        PACE,
        [StreamReader("probe", "probe", into, backend.inbox, redis)],
    )
    into.wake = steward.wake_processor
    await steward.run()


if __name__ == "__main__":
    asyncio.run(listen(*sys.argv[1:]))
