"""A testbed for a payment gateway, and functions that test the gateway with it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import ClassVar, Final
from uuid import UUID

from markethall.payments.contract.errors import UnsupportedByProvider
from markethall.payments.ports import (
    PROVIDER_TIMEOUT,
    ActionRequired,
    Capability,
    Failed,
    MethodDetails,
    OperationKind,
    OperationRequest,
    Outcome,
    PaymentGateway,
    PaymentGatewayTimeout,
    ProviderEvent,
    ReportKind,
    ReportLine,
    Succeeded,
    WebhookSignatureInvalid,
)
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money

AMOUNT: Final = 1000


@dataclass(frozen=True)
class ProviderTotals:
    """The amounts of one charge or authorization at the provider, in minor units."""

    captured: int = 0
    refunded: int = 0


class GatewayTestbed(ABC):
    """A gateway and its provider. The provider has no operations at the start."""

    gateway: PaymentGateway
    # a payment method whose charges succeed, and one whose charges are declined
    method: str
    declined_method: str
    # a payment method whose charges wait for an action of the customer; only needed for the
    # capability `cancel_action`
    action_method: str = ""
    currency: str = "EUR"
    other_currency: str = "USD"
    # the time at which the webhooks of the tests are received
    NOW: ClassVar = datetime(2026, 1, 1, 12, tzinfo=UTC)

    @abstractmethod
    async def totals(self, charge_id: UUID) -> ProviderTotals:
        """Return the amounts of a charge or authorization; zeros for one that does not exist."""

    @abstractmethod
    def lose_next_answer(self) -> None:
        """Let the provider execute the next command, but drop its answer."""

    def finish_action(self, charge_id: UUID) -> None:
        """Finish the action as the customer does; the charge succeeds unless it was cancelled.

        A gateway without the capability `cancel_action` does not need this method.
        """
        raise NotImplementedError("needed for the capability `cancel_action`")

    def open_dispute(self, charge_id: UUID) -> str:
        """Dispute the whole amount of a charge. Return the id of the dispute at the provider.

        A gateway without the capability `disputes` does not need this method.
        """
        raise NotImplementedError("needed for the capability `disputes`")

    def webhook_body(self, request: OperationRequest, outcome: Outcome) -> bytes:
        """Return the body of the provider's event about an operation.

        A gateway without the capability `webhooks` does not need this method.
        """
        raise NotImplementedError("needed for the capability `webhooks`")

    def sign_webhook(self, body: bytes, sent_at: datetime) -> Mapping[str, str]:
        """Return the headers with which the provider sends a body. Their names are in lower case.

        A gateway without the capability `webhooks` does not need this method.
        """
        raise NotImplementedError("needed for the capability `webhooks`")

    def can(self, *capabilities: Capability) -> bool:
        """Tell whether the gateway declares all of these capabilities."""
        return self.gateway.capabilities.issuperset(capabilities)

    def charge_request(
        self,
        amount: int = AMOUNT,
        method: str | None = None,
        kind: OperationKind = OperationKind.CHARGE,
    ) -> OperationRequest:
        return OperationRequest(
            operation_id=new_id(),
            payment_id=new_id(),
            kind=kind,
            amount=Money(amount=amount, currency=self.currency),
            created_at=self.NOW,
            method=method or self.method,
        )

    def follow_up(
        self,
        kind: OperationKind,
        charge: OperationRequest,
        amount: int = AMOUNT,
        currency: str | None = None,
        *,
        is_final: bool = False,
    ) -> OperationRequest:
        """Return a capture, void or refund of a charge whose `reference` is known."""
        return OperationRequest(
            operation_id=new_id(),
            payment_id=charge.payment_id,
            kind=kind,
            amount=Money(amount=amount, currency=currency or self.currency),
            created_at=self.NOW,
            charge_id=charge.operation_id,
            charge_reference=charge.reference,
            is_final=is_final,
        )


# a period that contains every operation of the tests, even if the provider's clock is wrong
REPORT_START: Final = datetime(2000, 1, 1, tzinfo=UTC)
REPORT_END: Final = datetime(2100, 1, 1, tzinfo=UTC)


def expect(is_as_expected: bool, message: str) -> None:
    """Raise AssertionError unless the check holds; pytest explains `assert` only in test files."""
    if not is_as_expected:
        raise AssertionError(message)


def expect_success(outcome: Outcome | None, what: str) -> None:
    expect(isinstance(outcome, Succeeded), f"{what} has the outcome {outcome}")


def expect_failure(outcome: Outcome | None, what: str) -> None:
    is_failure = isinstance(outcome, Failed) and bool(outcome.code)
    expect(is_failure, f"{what} has the outcome {outcome}")


def is_blocked(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and outcome.code == PROVIDER_TIMEOUT


async def expect_totals(
    testbed: GatewayTestbed, charge: OperationRequest, captured: int = 0, refunded: int = 0
) -> None:
    expected, found = ProviderTotals(captured, refunded), await testbed.totals(charge.operation_id)
    expect(found == expected, f"the provider has {found} instead of {expected}")


async def expect_timeout(gateway: PaymentGateway, request: OperationRequest) -> None:
    commands = {
        OperationKind.CHARGE: gateway.charge,
        OperationKind.CAPTURE: gateway.capture,
        OperationKind.REFUND: gateway.refund,
    }
    try:
        outcome = await commands[request.kind](request)
    except (PaymentGatewayTimeout, TimeoutError):
        return
    except Exception as error:  # noqa: BLE001 - any other error fails the test
        expect(False, f"a lost answer raises {error!r}")
    else:
        expect(False, f"a lost answer has the outcome {outcome}")


async def charge_once(testbed: GatewayTestbed) -> tuple[OperationRequest, Outcome]:
    """Charge. Return the request and the outcome.

    In the returned request, `reference` is the id of the charge at the provider.
    """
    request = testbed.charge_request()
    outcome = await testbed.gateway.charge(request)
    expect_success(outcome, "a charge")
    return replace(request, reference=outcome.reference), outcome


async def authorize_once(testbed: GatewayTestbed) -> OperationRequest:
    request = testbed.charge_request(kind=OperationKind.AUTHORIZE)
    outcome = await testbed.gateway.authorize(request)
    again = await testbed.gateway.authorize(request)
    expect_success(outcome, "an authorization")
    expect(again == outcome, f"a repeated authorization returned {again}, the first {outcome}")
    found = await testbed.gateway.lookup(request)
    expect(found == outcome, f"lookup returned {found}, the authorization {outcome}")
    return replace(request, reference=outcome.reference)


async def start_action(testbed: GatewayTestbed) -> OperationRequest:
    """Charge with a method that waits for the customer. Return the request with its reference."""
    request = testbed.charge_request(method=testbed.action_method)
    outcome = await testbed.gateway.charge(request)
    is_cancellable = isinstance(outcome, ActionRequired) and outcome.is_cancellable
    expect(is_cancellable, f"a charge that waits for the customer has the outcome {outcome}")
    return replace(request, reference=outcome.reference)


async def save_method(testbed: GatewayTestbed) -> tuple[OperationRequest, MethodDetails]:
    """Charge and save the method. Return the request, and the saved method."""
    customer = await testbed.gateway.ensure_customer(new_id())
    request = replace(testbed.charge_request(), customer=customer, saves_method=True)
    outcome = await testbed.gateway.charge(request)
    saved = saved_method_of(outcome)
    if saved is None:
        raise AssertionError(f"a charge that saves its method has the outcome {outcome}")
    return replace(request, reference=outcome.reference), saved


def saved_method_of(outcome: Outcome | None) -> MethodDetails | None:
    return outcome.saved_method if isinstance(outcome, Succeeded) else None


def charge_of_saved(
    testbed: GatewayTestbed, saved: MethodDetails, customer: str | None
) -> OperationRequest:
    return replace(testbed.charge_request(method=saved.token), customer=customer)


async def is_supported(testbed: GatewayTestbed, capability: Capability) -> bool:
    """Try to use the capability, and return whether it works."""
    try:
        match capability:
            case Capability.AUTHORIZE:
                await authorize_once(testbed)
            case Capability.PARTIAL_CAPTURE | Capability.MULTIPLE_CAPTURES:
                return await captures(testbed, several=capability is Capability.MULTIPLE_CAPTURES)
            case Capability.REFUND | Capability.PARTIAL_REFUND:
                amount = AMOUNT if capability is Capability.REFUND else 1
                return await refunds(testbed, amount)
            case Capability.MARK_PAID:
                # a gateway has no method for it, because staff record the payment in the shop
                return testbed.can(capability)
            case _:
                await call_once(testbed, capability)
    except UnsupportedByProvider:
        return False
    except DomainError:
        # the gateway parses webhooks, and rejects this one because it is not signed
        return True
    return True


async def call_once(testbed: GatewayTestbed, capability: Capability) -> None:
    """Call the method of a capability. Raises UnsupportedByProvider if the gateway has none."""
    match capability:
        case Capability.CANCEL_ACTION:
            # a charge that the provider has never received
            await testbed.gateway.cancel_action(testbed.charge_request())
        case Capability.REPORT:
            await report_lines(testbed)
        case Capability.SAVED_METHODS:
            await testbed.gateway.ensure_customer(new_id())
        case Capability.DISPUTES:
            await testbed.gateway.lookup_dispute("unknown")
        case Capability.WEBHOOKS:
            testbed.gateway.parse_event({}, b"", testbed.NOW)


async def captures(testbed: GatewayTestbed, *, several: bool) -> bool:
    authorization = await authorize_once(testbed)
    outcomes = [
        await testbed.gateway.capture(testbed.follow_up(OperationKind.CAPTURE, authorization, 1))
        for _ in range(1 + several)
    ]
    return all(isinstance(outcome, Succeeded) for outcome in outcomes)


async def refunds(testbed: GatewayTestbed, amount: int) -> bool:
    charge, _ = await charge_once(testbed)
    request = testbed.follow_up(OperationKind.REFUND, charge, amount)
    return isinstance(await testbed.gateway.refund(request), Succeeded)


def receive(testbed: GatewayTestbed, body: bytes, sent_at: datetime) -> ProviderEvent:
    headers = testbed.sign_webhook(body, sent_at)
    return testbed.gateway.parse_event(headers, body, testbed.NOW)


def expect_forged(testbed: GatewayTestbed, headers: dict[str, str], body: bytes, what: str) -> None:
    try:
        testbed.gateway.parse_event(headers, body, testbed.NOW)
    except WebhookSignatureInvalid:
        return
    except Exception as error:  # noqa: BLE001 - any other error fails the test
        expect(False, f"a webhook {what} raises {error!r}")
    else:
        expect(False, f"a webhook {what} is accepted")


async def report_lines(
    testbed: GatewayTestbed, start: datetime = REPORT_START, end: datetime = REPORT_END
) -> list[ReportLine]:
    return [line async for line in testbed.gateway.report(start, end)]


async def expect_reported(
    testbed: GatewayTestbed, request: OperationRequest, outcome: Outcome, kind: ReportKind
) -> None:
    """Expect one line of the operation, with its amount, in the report."""
    lines = await lines_of(testbed, request, outcome)
    expect(len(lines) == 1, f"the report has {len(lines)} lines of the {request.kind}")
    (line,) = lines
    expect(line.kind is kind, f"the report calls the {request.kind} a {line.kind}")
    expect(
        line.amount == request.amount,
        f"the report has {line.amount} instead of {request.amount}",
    )


async def lines_of(
    testbed: GatewayTestbed, request: OperationRequest, outcome: Outcome
) -> list[ReportLine]:
    """Return the lines with the id of the operation, or with the reference of its outcome.

    A line may also have the id of the authorization that was captured.
    """
    ids = {request.operation_id, request.charge_id} - {None}
    is_capture = request.kind is OperationKind.CAPTURE
    return [
        line
        for line in await report_lines(testbed)
        if line.kind is not ReportKind.OTHER
        and (
            line.operation_id == request.operation_id
            or (outcome.reference and line.reference == outcome.reference)
            or (is_capture and line.operation_id in ids)
        )
    ]
