"""Calls of the payment providers.

`ProviderClient` returns outcomes; `apply_outcome` applies them.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from markethall.payments.contract.errors import (
    UnknownPaymentMethod,
    UnknownProvider,
    UnknownReportProvider,
)
from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import FREE_METHOD, Operation, Outcome, Succeeded
from markethall.payments.domain.outcomes import CHARGE_KINDS
from markethall.payments.domain.saved_method import SavedMethod
from markethall.payments.ports import (
    Capability,
    OperationRequest,
    OutcomePending,
    PaymentGateway,
    PaymentMethod,
    ProviderDispute,
    ProviderEvent,
    ProviderNews,
    ReportLine,
)
from markethall.payments.service.provider_connection import ProviderConnection, ProviderLimits
from markethall.shared.kernel.circuit_breaker import MonotonicClock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.money import Money

T = TypeVar("T")


@dataclass(frozen=True)
class Undecided:
    """The answer of a provider that has the operation, and has not decided its outcome yet."""


class ProviderClient:
    """The client of all enabled payment providers. The first one is the default.

    Operations of a provider that was disabled stay open until it is enabled again.
    """

    def __init__(
        self,
        gateways: Sequence[PaymentGateway],
        limits: ProviderLimits,
        clock: MonotonicClock = time.monotonic,
    ) -> None:
        self.default_provider = gateways[0].provider
        self._limits = limits
        self._connections = {
            gateway.provider: ProviderConnection(gateway, limits, clock) for gateway in gateways
        }

    def provider_of(self, method: str) -> str:
        """Return the provider of a payment method. Raises UnknownPaymentMethod."""
        if method == FREE_METHOD:
            return FREE_METHOD
        for provider, connection in self._connections.items():
            if connection.gateway.accepts(method):
                return provider
        raise UnknownPaymentMethod(payment_method=method)

    def list_methods(
        self, currency: str | None, country: str | None, total: int | None
    ) -> list[tuple[str, PaymentMethod]]:
        """Return the offered methods, each with its provider.

        `total` is in minor units. An argument of None excludes no method.
        """
        return [
            (provider, method)
            for provider, connection in self._connections.items()
            for method in connection.gateway.list_methods()
            if method.is_offered(currency, country, total)
        ]

    def list_webhook_providers(self) -> list[str]:
        return [name for name in self._connections if self.can(name, Capability.WEBHOOKS)]

    def can(self, provider: str, capability: Capability) -> bool:
        connection = self._connections.get(provider)
        return connection is not None and capability in connection.gateway.capabilities

    def is_enabled(self, provider: str) -> bool:
        return provider in self._connections

    def is_refunded_by_hand(self, provider: str) -> bool:
        """Tell whether staff transfer the refunds of a provider. False if it is disabled."""
        return self.can(provider, Capability.MARK_PAID) and not self.can(
            provider, Capability.REFUND
        )

    def check_offered(self, method: str, amount: Money, country: str | None) -> None:
        """Check that a method is offered. Raises UnknownPaymentMethod.

        A country of None is not checked, nor is a method that the provider accepts but does not
        list, such as a token.
        """
        gateway = self._connection(self.provider_of(method)).gateway
        for listed in gateway.list_methods():
            if listed.method == method and not listed.is_offered(
                amount.currency, country, amount.amount
            ):
                raise UnknownPaymentMethod(payment_method=method)

    def slot(self, provider: str) -> AbstractContextManager[None]:
        """Hold a slot for one charge. Raises Unavailable, Overloaded before anything is sent."""
        if provider == FREE_METHOD:
            return nullcontext()
        return self._connection(provider).slot()

    @property
    def announce_after_seconds(self) -> float:
        return self._limits.announce_after.total_seconds()

    def next_reconcile_at(self, now: datetime) -> datetime:
        return now + self._limits.reconcile_after

    async def submit_in_slot(self, operation: Operation) -> Outcome | None:
        """Send the operation; the caller holds a slot.

        Return the outcome, or None after a timeout.
        """
        if operation.method == FREE_METHOD:
            return Succeeded(FREE_METHOD)
        connection = self._connection(operation.provider)
        outcome, _ = await connection.ask_in_slot(_submission(connection.gateway, operation))
        return outcome

    async def submit(self, operation: Operation) -> Outcome | None:
        """Send the operation. Return its outcome, or None if the provider gave no answer."""
        outcome, _ = await self._ask(
            operation.provider, lambda gateway: _submission(gateway, operation)()
        )
        return outcome

    async def lookup(
        self, operation: Operation, news: ProviderNews | None = None
    ) -> tuple[Outcome | None, bool]:
        """Return (outcome, True), or (None, False) if the provider gave no answer.

        (None, True) means that the provider has not received the operation. `news` is the content
        of a webhook event about the operation.
        """
        if operation.method == FREE_METHOD:
            return Succeeded(FREE_METHOD), True
        request = _to_request(operation)
        if news:
            return await self._ask(
                operation.provider, lambda gateway: gateway.lookup_after_news(request, news)
            )
        return await self._ask(operation.provider, lambda gateway: gateway.lookup(request))

    async def reconcile(self, operation: Operation) -> Outcome | None:
        """Look up the outcome of an open operation. Return None if the provider gave no answer.

        A charge that the provider never received is cancelled, because the customer may have left.
        A refund that it never received is submitted again, because the customer must get the money;
        so is a capture or void, because the goods are shipped or the order is cancelled.
        """
        outcome, was_answered = await self.lookup(operation)
        if outcome or not was_answered:
            return outcome
        if operation.kind not in CHARGE_KINDS:
            return await self.submit(operation)
        request = _to_request(operation)
        outcome, _ = await self._ask(
            operation.provider, lambda gateway: gateway.cancel_unknown(request)
        )
        return outcome

    async def lookup_action(self, operation: Operation) -> tuple[Outcome | Undecided | None, bool]:
        """Look up a charge that waits for the customer.

        The result is that of `lookup`, or Undecided if the provider has not decided the outcome.
        """
        request = _to_request(operation)
        return await self._ask(
            operation.provider, lambda gateway: _unless_undecided(gateway.lookup(request))
        )

    async def cancel_action(self, operation: Operation) -> Outcome | Undecided | None:
        """Cancel a charge that waits for the customer. Return None if the provider gave no answer.

        If the customer has acted before, the outcome is that of the action; Undecided if the
        provider has not decided it.
        """
        request = _to_request(operation)
        outcome, _ = await self._ask(
            operation.provider, lambda gateway: _unless_undecided(gateway.cancel_action(request))
        )
        return outcome

    def provider_of_token(self, method: str) -> str | None:
        """Return the provider of a method that may be the token of a saved method, else None."""
        for provider, connection in self._connections.items():
            gateway = connection.gateway
            if self.can(provider, Capability.SAVED_METHODS) and gateway.accepts(method):
                is_listed = any(listed.method == method for listed in gateway.list_methods())
                return None if is_listed else provider
        return None

    async def lookup_dispute(
        self, provider: str, reference: str
    ) -> tuple[ProviderDispute | None, bool]:
        """Return (dispute, True), or (None, False) if the provider gave no answer.

        (None, True) means that there is no such dispute.
        """
        return await self._ask(provider, lambda gateway: gateway.lookup_dispute(reference))

    async def ensure_customer(self, provider: str, user_id: UUID, known: str | None) -> str | None:
        """Return `known`, or the reference of a new customer if `known` does not exist.

        None if the provider gave no answer.
        """
        reference, _ = await self._ask(
            provider, lambda gateway: gateway.ensure_customer(user_id, known)
        )
        return reference

    async def detach_method(self, method: SavedMethod) -> bool:
        """Detach a saved method. Return False if the provider gave no answer."""
        token = method.details.token
        _, was_answered = await self._ask(
            method.provider, lambda gateway: gateway.detach_method(token)
        )
        return was_answered

    async def take_back(self, charge: Operation, change_id: UUID, now: datetime) -> Outcome | None:
        """Refund the whole amount of a charge, or void a whole authorization.

        Return None if the provider gave no answer.
        """
        is_authorization = charge.kind is OperationKind.AUTHORIZE
        request = OperationRequest(
            operation_id=change_id,
            payment_id=charge.payment_id,
            kind=OperationKind.VOID if is_authorization else OperationKind.REFUND,
            amount=charge.money,
            created_at=now,
            charge_id=charge.operation_id,
            charge_reference=charge.provider_reference,
        )
        outcome, _ = await self._ask(
            charge.provider,
            lambda gateway: (gateway.void if is_authorization else gateway.refund)(request),
        )
        return outcome

    def check_enabled(self, provider: str) -> None:
        """Raises UnknownReportProvider."""
        if provider not in self._connections:
            raise UnknownReportProvider(provider=provider, known=list(self._connections))

    def list_report_providers(self) -> list[str]:
        return [name for name in self._connections if self.can(name, Capability.REPORT)]

    async def report(
        self, provider: str, start: datetime, end: datetime
    ) -> AsyncIterator[ReportLine]:
        """Yield the lines of the provider's report. Each line is a call with its own timeout.

        Raises UnsupportedByProvider, Unavailable.
        """
        connection = self._connection(provider)
        lines = connection.gateway.report(start, end)
        while True:
            line, was_answered = await connection.ask(lambda: anext(lines, None))
            if not was_answered:
                raise Unavailable(dependency=provider)
            if line is None:
                return
            yield line

    def report_row_parser(self, provider: str) -> Callable[[Mapping[str, str]], ReportLine]:
        """Return the parser of the provider's own report files. Raises Unavailable."""
        return self._connection(provider).gateway.parse_report_row

    def parse_event(
        self, provider: str, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> ProviderEvent:
        """Verify and parse a webhook. Raises UnknownProvider, and the errors of the gateway."""
        connection = self._connections.get(provider)
        if connection is None or Capability.WEBHOOKS not in connection.gateway.capabilities:
            raise UnknownProvider(provider=provider)
        return connection.gateway.parse_event(headers, body, now)

    def parse_news(self, event: ProviderEvent) -> ProviderNews:
        """Raises Unavailable for a provider that is not enabled."""
        return self._connection(event.provider).gateway.parse_news(event)

    def _connection(self, provider: str) -> ProviderConnection:
        connection = self._connections.get(provider)
        if connection is None:
            raise Unavailable(dependency=provider)
        return connection

    async def _ask(
        self, provider: str, call: Callable[[PaymentGateway], Awaitable[T]]
    ) -> tuple[T | None, bool]:
        """Return (result, True), or (None, False) if the provider gave no answer."""
        connection = self._connections.get(provider)
        if connection is None:
            return None, False
        return await connection.ask(lambda: call(connection.gateway))


async def _unless_undecided(call: Awaitable[T]) -> T | Undecided:
    try:
        return await call
    except OutcomePending:
        return Undecided()


def _submission(gateway: PaymentGateway, operation: Operation) -> Callable[[], Awaitable[Outcome]]:
    """Return the call that sends the operation."""
    commands = {
        OperationKind.CHARGE: gateway.charge,
        OperationKind.AUTHORIZE: gateway.authorize,
        OperationKind.CAPTURE: gateway.capture,
        OperationKind.VOID: gateway.void,
        OperationKind.REFUND: gateway.refund,
    }
    return lambda: commands[operation.kind](_to_request(operation))


def _to_request(operation: Operation) -> OperationRequest:
    return OperationRequest(
        operation_id=operation.operation_id,
        payment_id=operation.payment_id,
        kind=operation.kind,
        amount=operation.money,
        created_at=operation.created_at,
        method=operation.method or "",
        reference=operation.provider_reference,
        charge_id=operation.charge_id,
        charge_reference=operation.charge_reference,
        is_final=operation.is_final,
        customer=operation.customer,
        saves_method=operation.saves_method,
    )
