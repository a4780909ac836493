"""The port to the payment providers: the gateway of a provider, and its manifest.

The code of a new provider imports from `markethall.payments.ports`, which also exports the names of
this module; docs/writing-a-payment-provider.md shows an example.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol, get_args
from uuid import UUID

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from markethall.payments.contract.api import PaymentDispute
from markethall.payments.contract.errors import UnsupportedByProvider
from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import Operation, Outcome
from markethall.payments.domain.reconciliation import ReportLine
from markethall.payments.ports.sandbox import SandboxLedger
from markethall.shared.composition.settings import SETTINGS_CONFIG, Environment
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.money import Money

PROVIDER_TIMEOUT: Final = "provider_timeout"


class Capability(StrEnum):
    """An optional ability. Every provider can charge in one step and look up an operation."""

    # authorize an amount; then either capture the whole amount once, or void the authorization
    AUTHORIZE = "authorize"
    # capture less than is authorized
    PARTIAL_CAPTURE = "partial_capture"
    # capture one authorization several times, until a final capture or a void releases the rest
    MULTIPLE_CAPTURES = "multiple_captures"
    REFUND = "refund"
    # refund a part of a charge, also several times
    PARTIAL_REFUND = "partial_refund"
    WEBHOOKS = "webhooks"
    # the money arrives outside of the shop, and staff record it; without REFUND, they also transfer
    # the refunds and record them
    MARK_PAID = "mark_paid"
    # cancel a charge that waits for an action of the customer, so that it cannot succeed later
    CANCEL_ACTION = "cancel_action"
    # list the payments and refunds of a period, as the provider has recorded them
    REPORT = "report"
    # save the method of a charge, and charge it later by its token
    SAVED_METHODS = "saved_methods"
    # look up the disputes that webhook events name
    DISPUTES = "disputes"


@dataclass(frozen=True, kw_only=True)
class PaymentMethod:
    """A payment method that customers can choose. None means any currency, country or total."""

    method: str
    name: str
    instructions: str | None = None
    currencies: frozenset[str] | None = None
    countries: frozenset[str] | None = None
    # if set, the method is offered only for totals in the same currency, up to this amount
    max_total: Money | None = None

    def is_offered(
        self, currency: str | None = None, country: str | None = None, total: int | None = None
    ) -> bool:
        """Tell whether the method is offered; `total` is in minor units.

        An argument of None is not checked.
        """
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


class OutcomePending(PaymentGatewayTimeout):
    """The provider has answered, but it has not decided the outcome of the operation yet.

    The operation is looked up again. The circuit breaker does not count the call as a failure.
    """


@dataclass(frozen=True, kw_only=True)
class OperationRequest:
    """An operation for the provider: a charge, authorization, capture, void or refund.

    A charge or authorization has a `method`. The other kinds have `charge_id`, the id of the charge
    or authorization that they change, and `charge_reference`, its id at the provider. `reference`
    is the id of the operation itself at the provider, if it is known. A capture with `is_final`
    releases the uncaptured rest; without the capability `multiple_captures`, every capture does.

    `customer` is the reference that `ensure_customer` returned. A charge has it if its method is a
    saved one, or if `saves_method` is set: then the method is saved when the charge succeeds.
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
    is_final: bool = False
    customer: str | None = None
    saves_method: bool = False


@dataclass(frozen=True)
class ProviderDispute:
    """A dispute at the provider. `operation_id` is None if no operation of this shop is disputed.

    The operation is the charge or authorization.
    """

    dispute: PaymentDispute
    operation_id: UUID | None


@dataclass(frozen=True)
class ProviderEvent:
    """A webhook event. An event that changes no operation has no `operation_id`.

    An event about a dispute has only `dispute_reference`, the id of the dispute at the provider.
    """

    provider: str
    event_id: str
    type: str
    operation_id: UUID | None
    body: str
    dispute_reference: str | None = None


@dataclass(frozen=True)
class ProviderNews:
    """The content of a webhook event about an operation.

    `amount` is None if the event contains no amount.
    """

    kind: OperationKind
    outcome: Outcome
    amount: Money | None = None

    def is_about(self, operation: Operation) -> bool:
        return self.kind is operation.kind and self.amount in {None, operation.money}


class PaymentGateway(Protocol):
    """The client of one payment provider.

    Every command is idempotent by its operation id: a repeated call has no further effect and
    returns the outcome of the first call. A command that the provider rejects returns `Failed`.
    If the effect of a command is not known, for example because the answer cannot be read, the
    method raises PaymentGatewayTimeout or TimeoutError; if the provider says that it has not
    decided yet, OutcomePending. Any other exception has the same consequence, and is logged as an
    error. No method is called inside a database transaction.

    A gateway inherits from this class and overrides the methods of its capabilities; the other
    methods raise UnsupportedByProvider.
    """

    # the name in settings, in the API and in the ledger
    provider: str
    capabilities: frozenset[Capability] = frozenset()

    def accepts(self, method: str) -> bool:
        """Return whether the provider supports this payment method."""

    def list_methods(self) -> Sequence[PaymentMethod]:
        """Return the methods to show. `accepts` may allow more, such as saved cards."""
        return ()

    async def charge(self, request: OperationRequest) -> Outcome:
        """Authorize and capture the amount."""

    async def authorize(self, request: OperationRequest) -> Outcome:
        """Authorize the amount. The provider takes no money before a capture.

        The outcome `Succeeded` has `expires_at`, if the provider reports until when the amount can
        be captured; otherwise seven days are assumed.
        """
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.AUTHORIZE)

    async def capture(self, request: OperationRequest) -> Outcome:
        """Capture an amount of an authorization.

        Return `Failed` if the amount is more than the uncaptured rest.
        """
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.AUTHORIZE)

    async def void(self, request: OperationRequest) -> Outcome:
        """End an authorization and release the uncaptured rest.

        A later `capture` returns `Failed`. So does the void of an authorization that has ended.
        """
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.AUTHORIZE)

    async def refund(self, request: OperationRequest) -> Outcome:
        """Refund an amount of a charge, or of the captures of an authorization.

        Return `Failed` if the amount is more than the rest that is not refunded, or in another
        currency.
        """
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.REFUND)

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        """Return the current outcome of an operation by its operation id.

        Return None if the provider has not received the operation. A delayed request may still
        arrive later; `cancel_unknown` prevents it from taking effect.
        """

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        """Return the outcome of an operation. First block it if the provider has not received it.

        A blocked operation has the outcome `Failed(PROVIDER_TIMEOUT)`, even if its request arrives
        later.
        """

    async def cancel_action(self, request: OperationRequest) -> Outcome:
        """Cancel a charge that waits for an action of the customer, and return its outcome.

        The outcome is `Failed`, and the charge cannot succeed any more. If the customer has acted
        before, the charge stays as it is, and the outcome is that of the action. The outcomes
        `ActionRequired` of the gateway have `is_cancellable` set.
        """
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.CANCEL_ACTION)

    async def lookup_dispute(self, reference: str) -> ProviderDispute | None:
        """Return the current state of a dispute by its id at the provider.

        Return None if there is no such dispute, or if its amount cannot be converted.
        """
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.DISPUTES)

    async def ensure_customer(self, user_id: UUID, known: str | None = None) -> str:
        """Return the reference of the user's customer object, which owns the saved methods.

        `known` is the reference that an earlier call returned, or None. Return it if its object
        still exists at the provider; otherwise create an object. A repeated call, for example after
        a lost answer, may create an object that is never used.
        """
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.SAVED_METHODS)

    async def detach_method(self, token: str) -> None:
        """Delete a saved method, so that it cannot be charged any more.

        It is no error if the method was deleted before or does not exist.
        """
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.SAVED_METHODS)

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
        self, request: OperationRequest, news: ProviderNews
    ) -> Outcome | None:
        """Look up the operation of a webhook event; `news` is the content of the event.

        The event may be old, so the current outcome at the provider counts. Only a simulated
        provider overrides this method: no real customer acts there, so it adopts the outcome of the
        event.
        """
        return await self.lookup(request)

    def report(self, start: datetime, end: datetime) -> AsyncIterator[ReportLine]:
        """List the provider's records from `start` until before `end`, in any sequence.

        A line has the operation id, or the reference that the command returned. If two operations
        may have the same reference, each line must have the operation id. If an answer is lost, the
        iterator raises PaymentGatewayTimeout or TimeoutError.
        """
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.REPORT)

    def parse_report_row(self, row: Mapping[str, str]) -> ReportLine:
        """Parse a row of the provider's own report file: column -> text. Raises InvalidReportCell.

        A provider whose files have no columns of their own does not override this method.
        """
        raise UnsupportedByProvider(provider=self.provider, capability=Capability.REPORT)

    async def close(self) -> None:
        """Close the connections to the provider."""
        # an explicit body: type checkers treat a Protocol method without a body as abstract
        return


class ProviderSettings(BaseSettings):
    """The settings of one provider. A provider adds its own settings in a subclass.

    To reject settings, a model validator of the subclass raises SettingsError.
    """

    model_config = SETTINGS_CONFIG

    environment: Environment = "development"

    @property
    def lax_settings(self) -> Mapping[str, str]:
        """Return the risky settings that production allows: setting name -> its effect."""
        return {}


Sleep = Callable[[float], Awaitable[None]]
DeliverWebhook = Callable[[str, Mapping[str, str], bytes], Awaitable[object]]


@dataclass(frozen=True, kw_only=True)
class GatewayTools:
    """Tools that the process gives to a gateway. A provider over HTTP needs only the clock."""

    clock: Clock
    # derive keys from it, each with a purpose of its own; do not use it as a key itself
    secret_key: bytes
    sandbox_ledger: SandboxLedger
    # passes a webhook to the shop; arguments: provider name, headers, body
    deliver_webhook: DeliverWebhook
    sleep: Sleep


@dataclass(frozen=True, kw_only=True)
class GatewayManifest:
    """Describes one payment provider. An entry point refers to the manifest.

    Every process imports the manifests of all installed providers, so the import must be fast.
    `build` creates the gateway from the tools and the provider's settings. It imports the
    provider's SDK, so that only shops that use the provider load the SDK.
    """

    name: str
    build: Callable[[GatewayTools, Any], PaymentGateway]
    settings: type[ProviderSettings] = ProviderSettings

    @property
    def secret_settings(self) -> tuple[str, ...]:
        """Return the names of the provider's own settings that hold secrets."""
        fields = self.settings.model_fields.items()
        return tuple(name for name, field in fields if _holds_secret(field.annotation))


def _holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_holds_secret, get_args(annotation)))
