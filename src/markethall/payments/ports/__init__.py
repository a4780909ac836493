"""Ports of payments: the storage, the payment providers, the storage of the sandbox."""

from markethall.payments.contract import (
    AwaitTransferAction,
    NextAction,
    OperationKind,
    ProviderSdkAction,
    RedirectAction,
    WebhookSignatureInvalid,
)
from markethall.payments.contract.reconciliation import ReportKind
from markethall.payments.domain import ActionRequired, Failed, Outcome, Succeeded
from markethall.payments.domain.reconciliation import ReportLine
from markethall.payments.domain.report_files import InvalidReportCell
from markethall.payments.ports.gateway import (
    PROVIDER_TIMEOUT,
    Capability,
    DeliverWebhook,
    GatewayManifest,
    GatewayTools,
    OperationRequest,
    OutcomePending,
    PaymentGateway,
    PaymentGatewayTimeout,
    PaymentMethod,
    ProviderEvent,
    ProviderNews,
    ProviderSettings,
    Sleep,
)
from markethall.payments.ports.ledger import (
    EntrySums,
    EntrySumsPage,
    LedgerReadStore,
    LedgerStore,
    PostingFilter,
    StoredChain,
    add_sums,
)
from markethall.payments.ports.reconciliation import (
    Reconciliation,
    ReconciliationFilter,
    ReportedIds,
)
from markethall.payments.ports.sandbox import (
    EARLIER_CHARGE_STATUSES,
    SandboxCharge,
    SandboxLedger,
    SandboxMovement,
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
    "EntrySums",
    "EntrySumsPage",
    "Failed",
    "GatewayManifest",
    "GatewayTools",
    "InvalidReportCell",
    "LedgerReadStore",
    "LedgerStore",
    "NextAction",
    "OperationFilter",
    "OperationKind",
    "OperationRequest",
    "Outcome",
    "OutcomePending",
    "PaymentFilter",
    "PaymentGateway",
    "PaymentGatewayTimeout",
    "PaymentMethod",
    "PostingFilter",
    "ProviderEvent",
    "ProviderNews",
    "ProviderSdkAction",
    "ProviderSettings",
    "ReadStore",
    "Reconciliation",
    "ReconciliationFilter",
    "RedirectAction",
    "ReportKind",
    "ReportLine",
    "ReportedIds",
    "SandboxCharge",
    "SandboxLedger",
    "SandboxMovement",
    "SandboxRefund",
    "Sleep",
    "Store",
    "StoredChain",
    "Succeeded",
    "WebhookSignatureInvalid",
    "WebhookState",
    "add_sums",
]
