"""The manifest of payments."""

from typing import TYPE_CHECKING, Final

from markethall.payments.settings import PaymentsSettings, provider_settings_classes
from markethall.shared.composition.manifest import (
    ContextManifest,
    Subscription,
    built_in_migrations,
)

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from markethall.payments.container import PaymentsContainer
    from markethall.shared.composition.parts import ContextParts


def _load_parts() -> "ContextParts[PaymentsContainer]":
    from markethall.payments.container import PaymentsContainer
    from markethall.payments.contract.internal import Payments
    from markethall.payments.remote import GuardedPayments, RemotePayments, routes
    from markethall.payments.router import router
    from markethall.shared.composition.parts import ContextParts, InternalApi

    internal_api: InternalApi[PaymentsContainer, Payments] = InternalApi(
        routes=routes,
        local=lambda container: container.payments(),
        remote=RemotePayments,
        guarded=GuardedPayments,
    )
    return ContextParts(PaymentsContainer, router, internal_api)


def _load_metadata() -> "MetaData":
    # this module adds its tables to those of `tables`
    from markethall.payments.sql.reconciliation_tables import reconciliations

    return reconciliations.metadata


MANIFEST: Final = ContextManifest(
    name="payments",
    path_prefixes=(
        "payments",
        "payment-methods",
        "saved-payment-methods",
        "transactions",
        "ledger",
    ),
    long_paths=(r"/transactions/export\.csv",),
    tags={"payments": "Payments, refunds, webhooks of providers, and the ledger."},
    migrations=built_in_migrations("payments"),
    settings=PaymentsSettings,
    load_extension_settings=provider_settings_classes,
    load_parts=_load_parts,
    load_metadata=_load_metadata,
    counters=("payment_count",),
    subscriptions=(Subscription("users.guest_claimed", "on_guest_claimed"),),
)
