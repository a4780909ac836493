"""One payment provider behind its own circuit breaker and its own limit of concurrent calls.

So a provider that is slow or down does not use up the time and the memory that other providers and
other requests need.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

import structlog

from markethall.payments.ports import OutcomePending, PaymentGateway, PaymentGatewayTimeout
from markethall.shared.kernel.circuit_breaker import Breaker, MonotonicClock
from markethall.shared.kernel.errors import DomainError, Overloaded, Unavailable
from markethall.shared.kernel.held_slots import leave_shared_slots
from markethall.shared.observability.metrics import PROVIDER_CIRCUIT_OPEN

log = structlog.get_logger("markethall.payments")

T = TypeVar("T")

COOL_DOWN_SECONDS: Final = 5.0


@dataclass(frozen=True)
class ProviderLimits:
    """The limits of the calls of one provider.

    `response` is the timeout of a call. After `failure_threshold` calls in a row without an answer
    the provider is not called for COOL_DOWN_SECONDS. The outcome of an operation that is still open
    after `reconcile_after` is looked up. If a charge has no response after `announce_after`, an
    event reports that the payment is being processed.
    """

    response: timedelta = timedelta(seconds=8)
    reconcile_after: timedelta = timedelta(seconds=15)
    announce_after: timedelta = timedelta(seconds=1)
    max_concurrent_calls: int = 64
    failure_threshold: int = 10


class ProviderConnection:
    def __init__(
        self,
        gateway: PaymentGateway,
        limits: ProviderLimits,
        clock: MonotonicClock = time.monotonic,
    ) -> None:
        self.gateway = gateway
        self.in_use = 0
        self._limits = limits
        self._breaker = Breaker(
            clock, failure_threshold=limits.failure_threshold, cool_down_seconds=COOL_DOWN_SECONDS
        )
        PROVIDER_CIRCUIT_OPEN.labels(gateway.provider).set_function(
            lambda: self._breaker.state != "closed"
        )

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot for one call.

        Raises Unavailable while the circuit is open, Overloaded while all slots are in use. Both
        errors mean that nothing was sent to the provider.
        """
        self._enter()
        try:
            yield
        finally:
            self.in_use -= 1

    async def ask_in_slot(self, call: Callable[[], Awaitable[T]]) -> tuple[T | None, bool]:
        """Call the provider; the caller holds a slot.

        Return (result, True), or (None, False) after a timeout, after an error of the gateway, or
        if the outcome is pending. The provider may have executed a command whose gateway fails,
        for example on an answer that it cannot read, so such a command stays open. An HTTP request
        also holds slots that all clients of the process share. Release these before the call, so
        that a slow provider does not use them up; the slots of the provider limit the call instead.
        """
        leave_shared_slots()
        try:
            async with asyncio.timeout(self._limits.response.total_seconds()):
                result = await call()
        except OutcomePending:
            self._breaker.record_success()
            return None, False
        except (PaymentGatewayTimeout, TimeoutError):
            self._breaker.record_failure()
            return None, False
        except DomainError:
            raise
        except Exception:  # an error of a gateway means that the outcome is not known
            self._breaker.record_failure()
            log.exception("provider.call_failed", provider=self.gateway.provider)
            return None, False
        self._breaker.record_success()
        return result, True

    async def ask(self, call: Callable[[], Awaitable[T]]) -> tuple[T | None, bool]:
        """Take a slot and call the provider.

        Return (result, True), or (None, False) if the circuit is open, if no slot is free, or if
        `ask_in_slot` has no result.
        """
        try:
            self._enter()
        except (Unavailable, Overloaded):
            return None, False
        try:
            return await self.ask_in_slot(call)
        finally:
            self.in_use -= 1

    def _enter(self) -> None:
        if self._breaker.state == "open":
            raise Unavailable(
                dependency=self.gateway.provider, retry_after=math.ceil(COOL_DOWN_SECONDS)
            )
        if self.in_use >= self._limits.max_concurrent_calls:
            raise Overloaded(retry_after=1)
        self.in_use += 1
