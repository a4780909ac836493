"""The settings of orders, and the installed calculators of shipping and tax."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from markethall.shared.composition.settings import ContextSettings, RateLimits

SHIPPING_CALCULATORS: Final = "markethall.shipping_calculators"
TAX_CALCULATORS: Final = "markethall.tax_calculators"
# not found by their entry points, so that they also work without package metadata
_BUILT_IN: Final = {
    SHIPPING_CALCULATORS: "markethall.orders.shipping.service:ShippingRates",
    TAX_CALCULATORS: "markethall.orders.tax.service:ConfiguredTaxRates",
}
BUILT_IN_NAME: Final = "rates"


def build_calculator(group: str, name: str) -> Any:
    """Build the calculator with this name. Raises LookupError if none is installed."""
    return _find_entry_point(group, name).load()()


def _find_entry_point(group: str, name: str) -> EntryPoint:
    if name == BUILT_IN_NAME:
        return EntryPoint(name, _BUILT_IN[group], group)
    for entry_point in entry_points(group=group, name=name):
        return entry_point
    raise LookupError(name)


def _require_installed(group: str) -> Callable[[str], str]:
    def check(name: str) -> str:
        try:
            _find_entry_point(group, name)
        except LookupError:
            names = [BUILT_IN_NAME, *sorted(entry_points(group=group).names)]
            raise ValueError(f"must be one of the calculators {', '.join(names)}") from None
        return name

    return check


class OrdersSettings(ContextSettings):
    reservation_ttl_seconds: Annotated[
        float,
        # inventory reserves stock for at most 15 minutes
        Field(
            gt=0,
            le=900,
            description="Seconds that stock is reserved for an unpaid order; 900 at most",
        ),
    ] = 900
    edit_payment_hours: Annotated[
        int,
        # inventory and payments allow at most 90 days
        Field(
            ge=1,
            le=720,
            description="Hours in which a customer can pay the additional amount of an edit",
        ),
    ] = 24
    order_stream_heartbeat_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=60,
            description="Seconds without an event after which a stream of order events sends a"
            " comment, so that proxies keep the connection",
        ),
    ] = 15
    order_stream_max_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=86_400,
            description="Seconds after which a stream of order events ends; the client connects"
            " again and misses nothing",
        ),
    ] = 900
    max_order_streams: Annotated[
        int, Field(ge=1, le=100_000, description="Streams of order events at once in a process")
    ] = 500
    max_order_streams_per_client: Annotated[
        int,
        Field(
            ge=1,
            description="Streams of order events at once of one user, or of all guests of a"
            " network, in a process",
        ),
    ] = 8
    rate_limits: RateLimits = "on"
    order_link_url: Annotated[
        str,
        Field(
            pattern=r"^(https?://[^\s#]+)?$",
            description="Page of the shop that opens the link of `POST /orders/lookup`: its"
            " fragment has `order_id` and `order_token`",
        ),
    ] = ""
    shipping_calculator: Annotated[
        str,
        AfterValidator(_require_installed(SHIPPING_CALCULATORS)),
        Field(
            description="The calculator of shipping prices. `rates` uses the shipping methods of"
            " the shop; others are installed as packages"
        ),
    ] = BUILT_IN_NAME
    tax_calculator: Annotated[
        str,
        AfterValidator(_require_installed(TAX_CALCULATORS)),
        Field(
            description="The calculator of taxes. `rates` uses the tax rates of the shop; others"
            " are installed as packages"
        ),
    ] = BUILT_IN_NAME
    max_open_carts_per_owner: Annotated[
        int, Field(ge=1, le=1000, description="Open carts that one customer or guest may have")
    ] = 20
    guest_cart_retention_days: Annotated[
        int,
        Field(
            ge=1,
            le=3650,
            description="Days after its last change at which the cart of a guest is deleted",
        ),
    ] = 30
    customer_cart_retention_days: Annotated[
        int,
        Field(
            ge=1,
            le=3650,
            description="Days after its last change at which the cart of a customer is deleted",
        ),
    ] = 90
