"""Test tools for the authors of contexts, payment providers, and shipping or tax calculators.

See docs/writing-a-context.md and docs/writing-a-payment-provider.md.
"""

from markethall.testing.contexts import (
    TEST_CALLER,
    AsgiNetwork,
    context_tools,
    deliver,
    migrated_database,
    open_remote,
)
from markethall.testing.gateway_testbed import GatewayTestbed, ProviderTotals
from markethall.testing.order_calculators import (
    ShippingCalculatorConformance,
    TaxCalculatorConformance,
)
from markethall.testing.payment_gateways import PaymentGatewayConformance

__all__ = [
    "TEST_CALLER",
    "AsgiNetwork",
    "GatewayTestbed",
    "PaymentGatewayConformance",
    "ProviderTotals",
    "ShippingCalculatorConformance",
    "TaxCalculatorConformance",
    "context_tools",
    "deliver",
    "migrated_database",
    "open_remote",
]
