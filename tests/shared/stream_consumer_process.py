"""A process that sends and consumes the events of the context `probe` through a Redis stream.

Usage: python -m tests.shared.stream_consumer_process DATABASE_URL REDIS_URL. Its handler inserts a
row for each event.
"""

import asyncio
import sys

from markethall.shared.composition.sql import build_sql_persistence
from markethall.shared.kernel.clock import utc_now
from markethall.shared.messaging.context_worker import ContextWorker
from markethall.shared.messaging.events import Delivery
from markethall.shared.messaging.inbox import InboxConsumer, WorkerConfig
from markethall.shared.messaging.outbox_relay import InProcessTransport, OutboxRelay
from markethall.shared.messaging.redis_stream_consumer import RedisStreamConsumer
from markethall.shared.messaging.redis_stream_publisher import RedisStreamPublisher
from markethall.shared.persistence.postgres import PoolSize, Postgres
from markethall.shared.persistence.redis_client import RedisClient
from tests.shared.conftest import STATEMENTS, ProbeSqlStore, ThingHappened
from tests.shared.event_keys import event_signer, event_verifier

HANDLER = "probe.on_thing_happened"
# a short lease, so that another process can soon claim the deliveries of a killed process
WORKER_CONFIG = WorkerConfig(
    poll_interval=0.02,
    reconcile_interval=0.1,
    leader_retry_interval=0.05,
    delivery_lease=0.5,
    relay_batch_size=20,
)


async def consume(database_url: str, redis_url: str) -> None:
    postgres = Postgres(database_url, PoolSize(min_size=1, max_size=10, timeout=5))
    backend = build_sql_persistence(postgres, STATEMENTS, ProbeSqlStore, utc_now)
    redis = RedisClient(redis_url, timeout=1.0)

    async def handle(delivery: Delivery, event: ThingHappened) -> None:
        async with backend.database.transaction() as store:
            if await store.mark_processed(delivery):
                await store.add(f"{event.thing}/{event.number}", event.number)

    inbox_transport = InProcessTransport(
        backend.inbox, {ThingHappened.type: [HANDLER]}, backend.inbox_signal.set
    )
    publisher = RedisStreamPublisher(
        "probe", {"probe": frozenset({ThingHappened.type})}, redis, utc_now, event_signer()
    )
    worker = ContextWorker(
        "probe",
        backend.outbox,
        OutboxRelay("probe", [], utc_now, [publisher]),
        InboxConsumer(backend.inbox, {HANDLER: handle}, utc_now, WORKER_CONFIG),
        [],
        WORKER_CONFIG,
        [
            RedisStreamConsumer(
                "probe", "probe", inbox_transport, backend.inbox, redis, event_verifier()
            )
        ],
        inbox_signal=backend.inbox_signal,
    )
    await worker.run()


if __name__ == "__main__":
    asyncio.run(consume(*sys.argv[1:]))
