"""The manifest and the settings of the sandbox."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from markethall.payments.ports import (
    GatewayManifest,
    GatewayTools,
    PaymentGateway,
    ProviderSettings,
)
from markethall.shared.composition.settings import Secret, SettingsError, validate_secret_strength

_NO_MONEY: Final = (
    "MARKETHALL_SANDBOX_IN_PRODUCTION: the payment provider sandbox takes no money; set true to run"
    " a demonstration, or name other providers in MARKETHALL_PAYMENT_PROVIDERS"
)
_NO_WEBHOOK_SECRET: Final = (
    "MARKETHALL_SANDBOX_WEBHOOK_SECRET: is required in production for the payment provider sandbox"
)


class SandboxSettings(ProviderSettings):
    sandbox_in_production: Annotated[
        bool,
        Field(
            description="Allow the sandbox in production: orders are paid without real money, so"
            " goods are given away"
        ),
    ] = False

    sandbox_webhook_secret: Annotated[
        Secret,
        Field(
            description="At least 32 characters; signs the webhooks of the sandbox. Empty: derived"
            " from SECRET_KEY, but not in production"
        ),
    ] = SecretStr("")

    sandbox_authorization_seconds: Annotated[
        float,
        Field(
            gt=0,
            description="Seconds after which an authorization of the sandbox expires; 7 days unless"
            " set",
        ),
    ] = 7 * 24 * 3600

    @field_validator("sandbox_webhook_secret")
    @classmethod
    def _validate_strength(cls, secret: SecretStr) -> SecretStr:
        return validate_secret_strength(secret)

    @model_validator(mode="after")
    def _check_production(self) -> Self:
        """Require two settings in production: the consent to take no money, and a webhook secret.

        SECRET_KEY is not enough, because every context has it and could sign webhooks.
        """
        problems = [] if self.sandbox_in_production else [_NO_MONEY]
        if not self.sandbox_webhook_secret.get_secret_value():
            problems.append(_NO_WEBHOOK_SECRET)
        if self.environment == "production" and problems:
            raise SettingsError(problems)
        return self

    @property
    def lax_settings(self) -> Mapping[str, str]:
        if self.environment != "production":
            return {}
        return {"MARKETHALL_SANDBOX_IN_PRODUCTION": "orders are paid without real money"}


def _build(tools: GatewayTools, settings: SandboxSettings) -> PaymentGateway:
    from markethall.payments.gateway.sandbox import SandboxGateway

    secret = settings.sandbox_webhook_secret.get_secret_value().encode()
    lifetime = timedelta(seconds=settings.sandbox_authorization_seconds)
    return SandboxGateway(tools, secret or tools.secret_key, lifetime)


MANIFEST: Final = GatewayManifest(name="sandbox", build=_build, settings=SandboxSettings)
