"""The sandbox gateway with the faults of a provider over HTTP."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace

from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import Outcome, Succeeded
from markethall.payments.gateway.sandbox import SandboxGateway
from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks
from markethall.payments.ports import (
    GatewayTools,
    OperationRequest,
    PaymentGatewayTimeout,
    ProviderNews,
)
from markethall.shared.kernel.money import Money
from tests.payments.provider_faults import ProviderFault as F

Effect = Callable[[], Awaitable[Outcome]]


class FaultySandbox(SandboxGateway):
    """A sandbox with faults planned by `fail`. While `is_down` is true, no request reaches it."""

    def __init__(self, tools: GatewayTools, webhook_secret: bytes) -> None:
        super().__init__(tools, webhook_secret)
        self.is_down = False
        self._faults: dict[OperationKind, deque[F]] = {}
        self._delayed: list[Effect] = []
        self._events = SandboxWebhooks(webhook_secret)
        self._tools = tools
        self._first_reference: str | None = None

    def fail(self, kind: OperationKind, *faults: F) -> None:
        self._faults.setdefault(kind, deque()).extend(faults)

    async def release(self) -> None:
        """Let the delayed requests take effect, after their clients have given up."""
        while self._delayed:
            await self._delayed.pop()()

    async def charge(self, request: OperationRequest) -> Outcome:
        charge = super().charge
        return await self._run(request, lambda: charge(request))

    async def authorize(self, request: OperationRequest) -> Outcome:
        authorize = super().authorize
        return await self._run(request, lambda: authorize(request))

    async def capture(self, request: OperationRequest) -> Outcome:
        capture = super().capture
        return await self._run(request, lambda: capture(request))

    async def void(self, request: OperationRequest) -> Outcome:
        void = super().void
        return await self._run(request, lambda: void(request))

    async def refund(self, request: OperationRequest) -> Outcome:
        refund = super().refund
        return await self._run(request, lambda: refund(request))

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        self._check_reachable()
        return await super().lookup(request)

    async def lookup_after_news(
        self, request: OperationRequest, news: ProviderNews
    ) -> Outcome | None:
        self._check_reachable()
        return await super().lookup_after_news(request, news)

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        self._check_reachable()
        return await super().cancel_unknown(request)

    def _check_reachable(self) -> None:
        if self.is_down:
            raise PaymentGatewayTimeout

    async def _run(self, request: OperationRequest, effect: Effect) -> Outcome:
        self._check_reachable()
        planned = self._faults.get(request.kind)
        fault = planned.popleft() if planned else None
        await self._fail_before(fault, effect)
        outcome = await effect()
        return await self._fail_after(fault, request, outcome)

    async def _fail_before(self, fault: F | None, effect: Effect) -> None:
        match fault:
            case F.TIMEOUT_BEFORE | F.RATE_LIMITED:
                raise PaymentGatewayTimeout
            case F.RESET_BEFORE:
                raise ConnectionResetError
            case F.DELAYED_REQUEST:
                self._delayed.append(effect)
                await asyncio.Event().wait()

    async def _fail_after(
        self, fault: F | None, request: OperationRequest, outcome: Outcome
    ) -> Outcome:
        match fault:
            case F.TIMEOUT_AFTER | F.SERVER_ERROR_AFTER:
                raise PaymentGatewayTimeout
            case F.RESET_AFTER:
                raise ConnectionResetError
            case F.SLOW_ANSWER:
                await asyncio.Event().wait()
            case F.GARBAGE:
                raise ValueError("the answer is not JSON")
            case F.WRONG_AMOUNT:
                await self._send_wrong_event(request, outcome, Money(amount=1, currency="EUR"))
            case F.WRONG_CURRENCY:
                wrong = request.amount.model_copy(update={"currency": "USD"})
                await self._send_wrong_event(request, outcome, wrong)
            case F.DUPLICATE_ID if isinstance(outcome, Succeeded):
                return replace(outcome, reference=self._first_reference or "")
        if isinstance(outcome, Succeeded):
            self._first_reference = self._first_reference or outcome.reference
        return outcome

    async def _send_wrong_event(
        self, request: OperationRequest, outcome: Outcome, amount: Money
    ) -> None:
        """Send a webhook with this amount, then raise PaymentGatewayTimeout for the lost answer."""
        headers, body = self._events.build_signed_event(
            request.operation_id, outcome, self._tools.clock(), amount, request.kind
        )
        await self._tools.deliver_webhook(self.provider, headers, body)
        raise PaymentGatewayTimeout
