from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerConfig:
    """Intervals, limits and timeouts of a ContextWorker. Times are in seconds.

    Notifications wake the relay and the consumer. The heartbeat also finds events in the outbox,
    and a poll of the inbox finds deliveries, if a notification is lost. Periodic jobs run at
    `idle_job_interval` when this process has written nothing for the time `idle_after`.
    """

    poll_interval: float = 5.0
    reconcile_interval: float = 1.0
    periodic_job_interval: float = 1.0
    idle_job_interval: float = 15.0
    idle_after: float = 60.0
    leader_retry_interval: float = 1.0
    heartbeat_interval: float = 5.0
    relay_batch_size: int = 100
    concurrency: int = 8
    delivery_lease: float = 30.0
    max_attempts: int = 8
    max_backoff: float = 60.0
