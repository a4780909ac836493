"""Ports of payments: the storage, the payment providers, the storage of the sandbox."""

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
    "Capability",
    "DeliverWebhook",
    "Failed",
    "GatewayManifest",
    "GatewayTools",
    "OperationFilter",
    "OperationRequest",
    "Outcome",
    "PaymentFilter",
    "PaymentGateway",
    "PaymentGatewayTimeout",
    "ProviderEvent",
    "ProviderNews",
    "ProviderSettings",
    "ReadStore",
    "SandboxCharge",
    "SandboxLedger",
    "SandboxRefund",
    "Sleep",
    "Store",
    "Succeeded",
    "WebhookState",
]
