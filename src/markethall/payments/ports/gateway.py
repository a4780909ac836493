"""The port to the payment providers: what a provider's gateway does, and its manifest.

A provider of one's own needs this module and `markethall.payments.ports` only:
docs/writing-a-payment-provider.md builds one.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol
from uuid import UUID

from pydantic_settings import BaseSettings

from markethall.payments.contract import OperationKind, UnsupportedByProvider
from markethall.payments.domain import Operation, Outcome
from markethall.payments.ports.sandbox import SandboxLedger
from markethall.shared.composition.settings import SETTINGS_CONFIG, Environment
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.money import Money

PROVIDER_TIMEOUT: Final = "provider_timeout"


class Capability(StrEnum):
    """An ability of a provider, besides charging at once and looking up an operation."""

    # authorize an amount, then capture it once, whole, or void it
    AUTHORIZE = "authorize"
    # capture less than is authorized
    PARTIAL_CAPTURE = "partial_capture"
    # capture one authorization several times
    MULTIPLE_CAPTURES = "multiple_captures"
    REFUND = "refund"
    # refund a part, also several times
    PARTIAL_REFUND = "partial_refund"
    WEBHOOKS = "webhooks"
    # the money arrives outside of the shop, and staff say so
    MARK_PAID = "mark_paid"


@dataclass(frozen=True, kw_only=True)
class PaymentMethod:
    """A payment method that customers can choose. None means any currency, country or total."""

    method: str
    name: str
    instructions: str | None = None
    currencies: frozenset[str] | None = None
    countries: frozenset[str] | None = None
    # then only totals in its currency
    max_total: Money | None = None

    def is_offered(
        self, currency: str | None = None, country: str | None = None, total: int | None = None
    ) -> bool:
        """Tell whether it is offered for these; `total` in minor units, None for not known."""
        return (
            _is_allowed(currency, self.currencies)
            and _is_allowed(country, self.countries)
            and self._covers(currency, total)
        )

    def _covers(self, currency: str | None, total: int | None) -> bool:
        if self.max_total is None or currency is None:
            return True
        is_small_enough = total is None or total <= self.max_total.amount
        return currency == self.max_total.currency and is_small_enough


def _is_allowed(value: str | None, allowed: frozenset[str] | None) -> bool:
    return value is None or allowed is None or value in allowed


class PaymentGatewayTimeout(Exception):
    """The provider gave no usable answer. It may have executed the command."""


@dataclass(frozen=True, kw_only=True)
class OperationRequest:
    """An operation for the provider: a charge, authorization, capture, void or refund.

    A charge or authorization has a `method`. The others have the id of the charge or authorization
    that they change, and the reference that the provider gave to it. `reference` is that of the
    operation itself, when it is known.
    """

    operation_id: UUID
    payment_id: UUID
    kind: OperationKind
    amount: Money
    created_at: datetime
    method: str = ""
    reference: str | None = None
    charge_id: UUID | None = None
    charge_reference: str | None = None


@dataclass(frozen=True)
class ProviderEvent:
    """A webhook event. An event that changes no payment has no `operation_id`."""

    provider: str
    event_id: str
    type: str
    operation_id: UUID | None
    body: str


@dataclass(frozen=True)
class ProviderNews:
    """The content of a webhook event about an operation. `amount` is None when it names none."""

    kind: OperationKind
    outcome: Outcome
    amount: Money | None = None

    def is_about(self, operation: Operation) -> bool:
        return self.kind is operation.kind and self.amount in {None, operation.money}


class PaymentGateway(Protocol):
    """The client of one payment provider.

    Every command is idempotent by its operation id: a repeated call has no further effect and
    returns the outcome of the first. What the provider rejects has the outcome `Failed`. A
    command whose effect is not known, also after an answer that cannot be read, raises
    PaymentGatewayTimeout or TimeoutError. No call is made inside a transaction.

    A gateway inherits from this class. It overrides the methods of its capabilities; the others
    raise UnsupportedByProvider.
    """

    # the name in settings, in the API and in the ledger
    provider: str
    capabilities: frozenset[Capability] = frozenset()

    def accepts(self, method: str) -> bool:
        """Return whether the provider supports this payment method."""

    def list_methods(self) -> Sequence[PaymentMethod]:
        """Return the methods to show to customers. More may be accepted, such as saved ones."""
        return ()

    async def charge(self, request: OperationRequest) -> Outcome:
        """Authorize and capture the amount."""

    async def authorize(self, request: OperationRequest) -> Outcome:
        """Authorize the amount. Nothing is taken before a capture."""
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.AUTHORIZE)

    async def capture(self, request: OperationRequest) -> Outcome:
        """Capture from an authorization. More than its rest is `Failed`."""
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.AUTHORIZE)

    async def void(self, request: OperationRequest) -> Outcome:
        """End an authorization of which nothing is captured; later captures of it are `Failed`."""
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.AUTHORIZE)

    async def refund(self, request: OperationRequest) -> Outcome:
        """Return money of a charge, or of the captures of an authorization. More than its rest, or
        another currency, is `Failed`.
        """
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.REFUND)

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        """Return the present outcome of an operation by its operation id.

        Return None when the provider never received it. A request can arrive after that: see
        `cancel_unknown`.
        """

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        """Return the outcome of an operation. Block an operation that the provider never received.

        The outcome of a blocked operation is `Failed(PROVIDER_TIMEOUT)`, also if it arrives later.
        """

    def parse_event(self, headers: Mapping[str, str], body: bytes, now: datetime) -> ProviderEvent:
        """Verify the signature of a webhook and parse it. The names in `headers` are in lower case.

        Raises WebhookSignatureInvalid, also for a signature that is too old or in the future;
        BodyTooLarge, MalformedRequest, ValidationFailed.
        """
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.WEBHOOKS)

    def parse_news(self, event: ProviderEvent) -> ProviderNews:
        """Parse a stored event that has an operation id."""
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.WEBHOOKS)

    async def lookup_after_news(
        self,
        request: OperationRequest,
        news: ProviderNews,
    ) -> Outcome | None:
        """Look up an operation about which a webhook brought news.

        News may be old, so the present outcome at the provider counts. Only a simulated provider
        overrides this, because a signed event is all that it knows.
        """
        return await self.lookup(request)

    async def close(self) -> None:
        """Close the connections to the provider."""
        # without a body a gateway would have to define this method
        return


class ProviderSettings(BaseSettings):
    """The settings of one provider. A provider adds its own in a subclass.

    A subclass refuses settings by SettingsError in a validator of the model.
    """

    model_config = SETTINGS_CONFIG

    environment: Environment = "development"

    @property
    def lax_settings(self) -> Mapping[str, str]:
        """Map each setting that is allowed in production but rarely meant to its effect."""
        return {}


Sleep = Callable[[float], Awaitable[None]]
DeliverWebhook = Callable[[str, Mapping[str, str], bytes], Awaitable[object]]


@dataclass(frozen=True, kw_only=True)
class GatewayTools:
    """Tools that the process gives to a gateway. A provider over HTTP needs only the clock."""

    clock: Clock
    # keys are derived from it with a purpose of one's own
    secret_key: bytes
    sandbox_ledger: SandboxLedger
    # arguments: the provider, the headers and the body, as if the provider had sent them
    deliver_webhook: DeliverWebhook
    sleep: Sleep


@dataclass(frozen=True, kw_only=True)
class GatewayManifest:
    """Describes one payment provider. An entry point names it; its import must be fast.

    `build` returns the gateway from the tools and the provider's settings. It imports the SDK, so
    that only shops with this provider load it.
    """

    name: str
    build: Callable[[GatewayTools, Any], PaymentGateway]
    settings: type[ProviderSettings] = ProviderSettings
