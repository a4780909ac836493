"""The settings of payments, and the installed payment providers.

A package adds a provider by an entry point in the group `markethall.payment_gateways` that names
its manifest; see docs/writing-a-payment-provider.md.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import NoDecode

from markethall.payments.ports import GatewayManifest, ProviderSettings
from markethall.shared.composition.settings import CommaList, ContextSettings

ENTRY_POINT_GROUP: Final = "markethall.payment_gateways"
# listed here, not found by entry points, so that they also work without package metadata
_BUILT_IN: Final = {
    "sandbox": "markethall.payments.gateway.sandbox_manifest:MANIFEST",
    "manual": "markethall.payments.gateway.manual:MANIFEST",
    "stripe": "markethall.payments.gateway.stripe.manifest:MANIFEST",
}


class InvalidGateway(Exception):
    """An entry point names no GatewayManifest, or two manifests have the same name."""


@cache
def installed_gateways() -> Mapping[str, GatewayManifest]:
    """Return the manifests of all installed providers by name. Raises InvalidGateway."""
    built_in = [EntryPoint(name, value, ENTRY_POINT_GROUP) for name, value in _BUILT_IN.items()]
    others = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name)
    manifests: dict[str, GatewayManifest] = {}
    for entry_point in (*built_in, *others):
        manifest = entry_point.load()
        if not isinstance(manifest, GatewayManifest):
            raise InvalidGateway(f"{entry_point.value} is not a GatewayManifest")
        if manifest.name in manifests:
            raise InvalidGateway(f"{entry_point.value}: there is another provider {manifest.name}")
        manifests[manifest.name] = manifest
    return manifests


def provider_settings_classes() -> tuple[type[ProviderSettings], ...]:
    """Return the settings classes of all installed providers."""
    return tuple(manifest.settings for manifest in installed_gateways().values())


def _check_installed(name: str) -> str:
    if name not in installed_gateways():
        raise ValueError(f"must be one of the providers {', '.join(installed_gateways())}")
    return name


class PaymentsSettings(ContextSettings):
    payment_providers: Annotated[
        tuple[Annotated[str, AfterValidator(_check_installed)], ...],
        NoDecode,
        CommaList,
        Field(
            min_length=1,
            description="The payment providers of the shop, as a comma list. A provider stays in it"
            " while it has payments that may be refunded",
        ),
    ] = ("sandbox",)
    payments_capture: Annotated[
        Literal["automatic", "on_fulfilment"],
        Field(
            description="`automatic`: a confirm takes the money. `on_fulfilment`: it authorizes the"
            " amount where the provider can, and each shipment captures its part"
        ),
    ] = "automatic"
    payment_provider_timeout_seconds: Annotated[
        float, Field(gt=0, description="Maximum time of a request to a payment provider")
    ] = 8
    payment_provider_max_concurrent_calls: Annotated[
        int,
        Field(
            ge=1,
            description="Requests to each payment provider at once in a process; beyond them a"
            " confirm gets 503",
        ),
    ] = 64
    payment_provider_failure_threshold: Annotated[
        int,
        Field(
            ge=1,
            description="Requests in a row without an answer, after which a payment provider is not"
            " called for 5 seconds",
        ),
    ] = 10
    payment_reconcile_after_seconds: Annotated[
        float,
        Field(gt=0, description="Seconds before the provider is asked for an unknown outcome"),
    ] = 15

    payment_reconciliation: Annotated[
        Literal["daily", "off"],
        Field(
            description="daily: compare each UTC day with the reports of the payment providers that"
            " give one"
        ),
    ] = "daily"
    payment_reconciliation_hour: Annotated[
        int,
        Field(
            ge=0,
            le=23,
            description="The hour in UTC from which the previous day is compared with the reports"
            " of the payment providers",
        ),
    ] = 3
    payment_reconciliation_tolerance_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=43_200,
            description="Seconds after the end of the compared period in which a payment provider"
            " may report an operation of the period",
        ),
    ] = 900

    @property
    def extension_classes(self) -> tuple[type[ProviderSettings], ...]:
        return tuple(installed_gateways()[name].settings for name in self.payment_providers)

    @property
    def lax_settings(self) -> Mapping[str, str]:
        lax: dict[str, str] = {}
        for settings_class in self.extension_classes:
            lax.update(self.extension(settings_class).lax_settings)
        return lax

    @property
    def slow_provider_seconds(self) -> float:
        return self.payment_provider_timeout_seconds
