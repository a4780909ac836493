"""The manifest of orders."""

from typing import TYPE_CHECKING, Final

from markethall.orders.settings import OrdersSettings
from markethall.shared.composition.manifest import (
    ContextManifest,
    Subscription,
    built_in_migrations,
)

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from markethall.orders.container import OrdersContainer
    from markethall.shared.composition.parts import ContextParts


def _load_parts() -> "ContextParts[OrdersContainer]":
    from markethall.orders.container import OrdersContainer
    from markethall.orders.router import router
    from markethall.shared.composition.parts import ContextParts

    return ContextParts(OrdersContainer, router)


def _load_metadata() -> "MetaData":
    from markethall.orders.sql import metadata

    return metadata


MANIFEST: Final = ContextManifest(
    name="orders",
    path_prefixes=(
        "orders",
        "draft-orders",
        "carts",
        "fulfilments",
        "returns",
        "shop",
        "shipping-methods",
        "tax-rates",
        "promotions",
    ),
    long_paths=(r"/orders/export\.csv", r"/orders/[^/]+/events"),
    tags={
        "orders": "Orders, their status and timeline, and their fulfilment.",
        "carts": "Carts of customers and guests, and their checkout.",
        "shop": "The settings of the shop, its shipping methods and tax rates.",
        "promotions": "Automatic discounts and vouchers, with their limits.",
    },
    migrations=built_in_migrations("orders"),
    settings=OrdersSettings,
    load_parts=_load_parts,
    load_metadata=_load_metadata,
    counters=("order_count",),
    calls={
        "users": frozenset({"get_active_customer", "issue_order_token"}),
        "inventory": frozenset(
            {
                "reserve",
                "extend",
                "commit",
                "consume",
                "release_part",
                "release",
                "merge",
                "restock",
                "list_reservation_states",
                "list_offers",
            }
        ),
        "payments": frozenset(
            {"open", "activate", "cancel", "capture_due", "void", "refund", "list_payment_states"}
        ),
    },
    subscriptions=(
        Subscription("users.guest_claimed", "on_guest_claimed"),
        Subscription("payments.payment_captured", "on_payment_captured"),
        Subscription("payments.payment_partially_captured", "on_payment_partially_captured"),
        Subscription("payments.payment_failed", "on_payment_failed"),
        Subscription("payments.payment_status_changed", "on_payment_status_changed"),
        Subscription("payments.payment_refunded", "on_payment_refunded"),
        Subscription("payments.dispute_changed", "on_payment_dispute_changed"),
        Subscription("orders.order_paid", "on_order_paid"),
        Subscription("orders.order_cancelled", "on_order_cancelled"),
        Subscription("orders.order_lines_cancelled", "on_order_lines_cancelled"),
        Subscription("orders.order_edited", "on_order_edited"),
        Subscription("orders.order_edit_opened", "on_order_edit_opened"),
        Subscription("orders.order_edit_dropped", "on_order_edit_dropped"),
        Subscription("orders.order_overpaid", "on_order_overpaid"),
        Subscription("orders.order_expired", "on_order_expired"),
        Subscription("orders.order_fulfilled", "capture_shipped"),
        Subscription("orders.order_fulfilled", "on_order_fulfilled"),
        Subscription("orders.sale_deferred", "on_sale_deferred"),
        Subscription("orders.fulfilment_returned", "on_fulfilment_returned"),
        Subscription("orders.return_received", "on_return_received"),
        Subscription("orders.return_closed", "on_return_closed"),
        Subscription("orders.order_lookup_requested", "on_order_lookup_requested"),
        Subscription("orders.order_link_requested", "on_order_link_requested"),
    ),
)
