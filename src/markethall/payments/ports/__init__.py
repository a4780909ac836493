"""Ports of payments: the storage, the payment providers, the storage of the sandbox."""

from markethall.payments.contract import (
    AwaitTransferAction,
    NextAction,
    OperationKind,
    ProviderSdkAction,
    RedirectAction,
    WebhookSignatureInvalid,
)
from markethall.payments.domain import ActionRequired, Failed, Outcome, Succeeded
from markethall.payments.ports.gateway import (
    PROVIDER_TIMEOUT,
    Capability,
    DeliverWebhook,
    GatewayManifest,
    GatewayTools,
    OperationRequest,
    PaymentGateway,
    PaymentGatewayTimeout,
    PaymentMethod,
    ProviderEvent,
    ProviderNews,
    ProviderSettings,
    Sleep,
)
from markethall.payments.ports.sandbox import (
    EARLIER_CHARGE_STATUSES,
    SandboxCharge,
    SandboxLedger,
    SandboxRefund,
)
from markethall.payments.ports.storage import (
    OperationFilter,
    PaymentFilter,
    ReadStore,
    Store,
    WebhookState,
)

__all__ = [
    "EARLIER_CHARGE_STATUSES",
    "PROVIDER_TIMEOUT",
    "ActionRequired",
    "AwaitTransferAction",
    "Capability",
    "DeliverWebhook",
    "Failed",
    "GatewayManifest",
    "GatewayTools",
    "NextAction",
    "OperationFilter",
    "OperationKind",
    "OperationRequest",
    "Outcome",
    "PaymentFilter",
    "PaymentGateway",
    "PaymentGatewayTimeout",
    "PaymentMethod",
    "ProviderEvent",
    "ProviderNews",
    "ProviderSdkAction",
    "ProviderSettings",
    "ReadStore",
    "RedirectAction",
    "SandboxCharge",
    "SandboxLedger",
    "SandboxRefund",
    "Sleep",
    "Store",
    "Succeeded",
    "WebhookSignatureInvalid",
    "WebhookState",
]
