"""When the payments of pending orders are checked."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from markethall.orders.domain.order import Order

# The ages of a pending order at which its payment is checked. Usually an event reports the capture
# in the first seconds, so an earlier check would only do the work of the event handler. The ages
# are at most 50 s apart, so that an order is marked as paid within a minute even without the event.
CHECK_AGES: Final = tuple(timedelta(seconds=age) for age in (15, 30, 60, *range(110, 911, 50)))
_MIN_OVERDUE_DELAY: Final = timedelta(seconds=1)
_MAX_OVERDUE_DELAY: Final = timedelta(seconds=30)
# The delays between checks of an order whose payment method, such as a bank transfer, has a
# deadline of days. The longer delay applies to orders older than _LONG_WAIT.
_CHECK_DELAY: Final = timedelta(seconds=50)
_LONG_WAIT: Final = timedelta(hours=1)
_CHECK_DELAY_OF_LONG_WAIT: Final = timedelta(minutes=10)


def next_overdue_check(order: Order, now: datetime) -> datetime:
    """Return the time of the next attempt to expire the order, after an attempt at `now`.

    The delay is half the time since `expires_at`, but at least 1 and at most 30 seconds. If
    `expires_at` was extended and is in the future, the payment is checked at `expires_at`, and
    before that every 50 seconds. If the order is older than an hour, the interval is ten minutes.
    """
    if order.expires_at <= now:
        delay = max((now - order.expires_at) / 2, _MIN_OVERDUE_DELAY)
        return now + min(delay, _MAX_OVERDUE_DELAY)
    is_long = now - order.created_at >= _LONG_WAIT
    return min(now + (_CHECK_DELAY_OF_LONG_WAIT if is_long else _CHECK_DELAY), order.expires_at)


class TimeSpan(NamedTuple):
    """The times after `after`, up to and including `until`."""

    after: datetime
    until: datetime


def due_check_spans(since: datetime | None, now: datetime) -> list[TimeSpan]:
    """Find the orders that have reached one of CHECK_AGES after `since`.

    Return the time spans in which these orders were created. `since` is the time of the previous
    check. If it is None or long ago, return one span with all ages. The times of checks are not
    stored, because a write per check would cost more than the check itself.
    """
    first, last = CHECK_AGES[0], CHECK_AGES[-1]
    # Any two ages differ by at least `first`. So the spans do not overlap if the pause since the
    # previous check is shorter than `first`; after a longer pause they might.
    if since is None or now - since >= first:
        return [TimeSpan(now - last - first, now - first)]
    return [TimeSpan(since - age, now - age) for age in CHECK_AGES]
