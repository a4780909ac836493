"""Counters of the metrics that count the changes of committed transactions.

A transaction that rolls back counts nothing. If the process ends between the commit and the next
scrape, the count is lost with the other counts of the process.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from prometheus_client import Counter

from markethall.shared.messaging.events import Event

# a counter and the amount to add to it
CommitCount = tuple[Counter, int]
EventCounters = Mapping[type[Event], Counter]
NO_COUNTERS: Final[EventCounters] = MappingProxyType({})


def count_committed(
    events: Sequence[Event], counters: EventCounters, counts: Iterable[CommitCount]
) -> None:
    """Count the events that have a counter, and add the amounts of the other counts."""
    for event in events:
        if counter := counters.get(type(event)):
            counter.inc()
    for counter, amount in counts:
        counter.inc(amount)
