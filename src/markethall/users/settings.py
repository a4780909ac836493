from typing import Final, Self

from pydantic import Field, SecretStr, model_validator

from markethall.shared.composition.settings import (
    ContextSettings,
    RateLimits,
    Secret,
    SettingsError,
)
from markethall.shared.kernel.email_address import normalize_email
from markethall.shared.security.passwords import weakness

# the lowest work factor that OWASP accepts for bcrypt; required in production only
MIN_BCRYPT_COST: Final = 10


class UsersSettings(ContextSettings):
    rate_limits: RateLimits = "on"
    bcrypt_cost: int = Field(
        12, ge=4, le=16, description="Work factor of password hashes; each step doubles the time"
    )
    guest_retention_days: int = Field(
        90,
        ge=1,
        le=3650,
        description="Days without a refresh of its tokens after which a guest is deleted; its "
        "orders stay",
    )
    order_token_ttl_seconds: int = Field(
        3600,
        ge=60,
        le=86_400,
        description="Lifetime of the token in the link that `POST /orders/lookup` sends",
    )
    admin_email: str = Field(
        "", description="With ADMIN_PASSWORD: the first admin, created if there is none"
    )
    admin_password: Secret = Field(SecretStr(""), description="See ADMIN_EMAIL")

    @model_validator(mode="after")
    def _cross_field_checks(self) -> Self:
        if problems := [*self._admin_problems(), *self._production_problems()]:
            raise SettingsError(problems)
        return self

    def _admin_problems(self) -> list[str]:
        password = self.admin_password.get_secret_value()
        if bool(self.admin_email) != bool(password):
            return ["MARKETHALL_ADMIN_EMAIL: comes together with MARKETHALL_ADMIN_PASSWORD"]
        if not password:
            return []
        try:
            normalize_email(self.admin_email)
        except ValueError as error:
            return [f"MARKETHALL_ADMIN_EMAIL: {error}"]
        code = weakness(password, self.admin_email, self.admin_email.partition("@")[0])
        return [f"MARKETHALL_ADMIN_PASSWORD: is {code.replace('_', ' ')}"] if code else []

    def _production_problems(self) -> list[str]:
        if self.environment == "production" and self.bcrypt_cost < MIN_BCRYPT_COST:
            return [f"MARKETHALL_BCRYPT_COST: is at least {MIN_BCRYPT_COST} in production"]
        return []
