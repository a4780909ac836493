"""The settings of payments: which providers are enabled, and the settings of each provider."""

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from typing import Annotated, Any

import pytest
from pydantic import Field, SecretStr

from markethall.payments import settings as payments_settings
from markethall.payments.container import PaymentsContainer
from markethall.payments.ports import (
    PROVIDER_TIMEOUT,
    Failed,
    GatewayManifest,
    GatewayTools,
    OperationRequest,
    Outcome,
    PaymentGateway,
    ProviderSettings,
    Succeeded,
)
from markethall.payments.settings import InvalidGateway, PaymentsSettings, installed_gateways
from markethall.settings import read_settings
from markethall.settings.validation import lax_settings
from markethall.shared.composition.settings import SettingsError, read_one
from markethall.testing import context_tools


class AcornSettings(ProviderSettings):
    acorn_key: Annotated[SecretStr, Field(min_length=5, description="The key of Acorn")]

    @property
    def lax_settings(self) -> Mapping[str, str]:
        return {"MARKETHALL_ACORN_KEY": "is a key of the tests"}


class AcornGateway(PaymentGateway):
    provider = "acorn"

    def __init__(self, settings: AcornSettings) -> None:
        self.key = settings.acorn_key.get_secret_value()

    def accepts(self, method: str) -> bool:
        return method == "acorn"

    async def charge(self, request: OperationRequest) -> Outcome:
        return Succeeded(str(request.operation_id))

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        return None

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        return Failed(PROVIDER_TIMEOUT)


def build(_: GatewayTools, settings: AcornSettings) -> PaymentGateway:
    return AcornGateway(settings)


ACORN = GatewayManifest(name="acorn", build=build, settings=AcornSettings)
SECOND_SANDBOX = GatewayManifest(name="sandbox", build=build)
NO_MANIFEST = "acorn"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that registers a provider as an entry point, as another package would."""

    def add(attribute: str) -> None:
        entry_point = EntryPoint(
            "acorn", f"{__name__}:{attribute}", payments_settings.ENTRY_POINT_GROUP
        )
        monkeypatch.setattr(payments_settings, "entry_points", lambda **_: [entry_point])
        installed_gateways.cache_clear()

    yield add
    installed_gateways.cache_clear()


def test_sandbox_is_the_default() -> None:
    assert read_one(PaymentsSettings, {}).payment_providers == ("sandbox",)


@pytest.mark.parametrize("names", ["", "paypal", "sandbox,paypal"])
def test_unknown_provider_is_refused(names: str) -> None:
    with pytest.raises(SettingsError, match="MARKETHALL_PAYMENT_PROVIDERS"):
        read_settings(payment_providers=names)


def test_provider_of_another_distribution_gets_its_settings(
    install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("ACORN")
    monkeypatch.setenv("MARKETHALL_PAYMENT_PROVIDERS", "acorn,sandbox")
    monkeypatch.setenv("MARKETHALL_ACORN_KEY", "12345")

    settings = read_settings(storage="memory").by_context["payments"]
    container = PaymentsContainer(settings=settings, tools=context_tools())
    acorn, sandbox = container.gateways()

    assert (acorn.provider, sandbox.provider) == ("acorn", "sandbox")
    assert isinstance(acorn, AcornGateway)
    assert acorn.key == "12345"


def test_problems_of_provider_settings_stop_the_start(
    install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("ACORN")
    monkeypatch.setenv("MARKETHALL_PAYMENT_PROVIDERS", "acorn")
    monkeypatch.setenv("MARKETHALL_ACORN_KEI", "12345")

    with pytest.raises(SettingsError) as error:
        read_settings()

    assert error.value.lines == [
        "MARKETHALL_ACORN_KEI: is not a setting; did you mean MARKETHALL_ACORN_KEY?",
        "MARKETHALL_ACORN_KEY: Field required",
    ]


def test_provider_that_is_off_needs_no_settings(install: Any) -> None:
    install("ACORN")

    assert "payments" in read_settings().by_context


def test_lax_settings_of_providers_are_named(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install("ACORN")
    monkeypatch.setenv("MARKETHALL_ACORN_KEY", "12345")

    settings = read_one(PaymentsSettings, {"payment_providers": "acorn"})

    assert settings.lax_settings == {"MARKETHALL_ACORN_KEY": "is a key of the tests"}
    assert lax_settings(read_settings()) == {}


@pytest.mark.parametrize(
    ("attribute", "message"),
    [("NO_MANIFEST", "is not a GatewayManifest"), ("SECOND_SANDBOX", "another provider sandbox")],
)
def test_wrong_entry_point_is_refused(install: Any, attribute: str, message: str) -> None:
    install(attribute)

    with pytest.raises(InvalidGateway, match=message):
        installed_gateways()


def test_manifest_names_the_secrets_of_a_provider() -> None:
    secrets = {name: one.secret_settings for name, one in installed_gateways().items()}

    assert secrets == {
        "sandbox": ("sandbox_webhook_secret",),
        "manual": (),
        "stripe": ("stripe_secret_key", "stripe_webhook_secrets"),
    }
