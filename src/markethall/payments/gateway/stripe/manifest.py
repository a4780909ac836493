"""The manifest and the settings of Stripe."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from markethall.payments.ports import (
    GatewayManifest,
    GatewayTools,
    PaymentGateway,
    ProviderSettings,
)
from markethall.shared.composition.settings import CommaList, Secret, SettingsError

API_BASE: Final = "https://api.stripe.com"
_SECRET_KEY: Final = re.compile(r"(?:sk|rk)_(?:live|test)_\w{10,}", re.ASCII)
_WEBHOOK_SECRET: Final = re.compile(r"whsec_[\w+/=-]{10,}", re.ASCII)
_NO_SDK: Final = (
    "MARKETHALL_PAYMENT_PROVIDERS: stripe needs its SDK: pip install 'markethall[stripe]'"
)
_TEST_KEY: Final = (
    "MARKETHALL_STRIPE_SECRET_KEY: is a test key, with which no money is taken; set"
    " MARKETHALL_STRIPE_TEST_KEY_IN_PRODUCTION=true to run a demonstration"
)
_OTHER_API: Final = f"MARKETHALL_STRIPE_API_BASE: must be {API_BASE} in production"
_INSECURE_RETURN: Final = "MARKETHALL_STRIPE_RETURN_URL: must begin with https:// in production"
# methods whose outcome is known at once or after a redirect; others, such as direct debits, take
# days, while a reservation of stock lasts minutes
MethodType = Literal[
    "alipay", "amazon_pay", "bancontact", "blik", "card", "eps", "ideal", "klarna", "link",
    "mobilepay", "p24", "paypal", "revolut_pay", "swish", "twint", "wechat_pay",
]  # fmt: skip


def _check_secret_key(key: SecretStr) -> SecretStr:
    if not _SECRET_KEY.fullmatch(key.get_secret_value()):
        raise ValueError("must be a secret or restricted key: sk_live_…, rk_live_…, sk_test_…")
    return key


def _check_webhook_secret(secret: SecretStr) -> SecretStr:
    if not _WEBHOOK_SECRET.fullmatch(secret.get_secret_value()):
        raise ValueError("must be a signing secret: whsec_…")
    return secret


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.fragment:
        raise ValueError("must be a URL that begins with https://, without a fragment")
    return url


class StripeSettings(ProviderSettings):
    stripe_secret_key: Annotated[
        Secret,
        AfterValidator(_check_secret_key),
        Field(description="Stripe's secret key, or better a restricted key; see docs/stripe.md"),
    ]
    stripe_webhook_secrets: Annotated[
        tuple[Annotated[SecretStr, AfterValidator(_check_webhook_secret)], ...],
        NoDecode,
        CommaList,
        Field(
            min_length=1,
            max_length=2,
            description="The signing secret of the webhook endpoint at Stripe; two as a comma list"
            " while it is rotated",
        ),
    ]
    stripe_payment_method_types: Annotated[
        tuple[MethodType, ...],
        NoDecode,
        CommaList,
        Field(
            min_length=1,
            description="The payment method types at Stripe, as a comma list. Wallets such as Apple"
            " Pay are cards; types that take days are not possible",
        ),
    ] = ("card",)
    stripe_return_url: Annotated[
        str | None,
        AfterValidator(lambda url: url and _check_url(url)),
        Field(
            description="The page of the shop to which Stripe sends customers back;"
            " `payment_id` is added. Empty: the page of the shop authenticates customers with"
            " Stripe.js, which works for cards only"
        ),
    ] = None
    stripe_test_key_in_production: Annotated[
        bool,
        Field(
            description="Allow a test key in production: orders are paid without real money, so"
            " goods are given away"
        ),
    ] = False
    stripe_api_base: Annotated[
        str,
        AfterValidator(lambda url: _check_url(url).rstrip("/")),
        Field(description="The address of Stripe's API; another one is for tests only"),
    ] = API_BASE

    @property
    def is_test_key(self) -> bool:
        return "_test_" in self.stripe_secret_key.get_secret_value()[:8]

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [] if find_spec("stripe") else [_NO_SDK]
        if self.environment == "production":
            problems += self._production_problems()
        if problems:
            raise SettingsError(problems)
        return self

    def _production_problems(self) -> list[str]:
        problems: list[str] = []
        if self.is_test_key and not self.stripe_test_key_in_production:
            problems.append(_TEST_KEY)
        if self.stripe_api_base != API_BASE:
            problems.append(_OTHER_API)
        if self.stripe_return_url and not self.stripe_return_url.startswith("https://"):
            problems.append(_INSECURE_RETURN)
        return problems

    @property
    def lax_settings(self) -> Mapping[str, str]:
        if self.environment != "production" or not self.is_test_key:
            return {}
        return {"MARKETHALL_STRIPE_TEST_KEY_IN_PRODUCTION": "orders are paid without real money"}


def _build(tools: GatewayTools, settings: StripeSettings) -> PaymentGateway:
    from markethall.payments.gateway.stripe.api import StripeApi
    from markethall.payments.gateway.stripe.gateway import StripeGateway
    from markethall.payments.gateway.stripe.intents import IntentOperations
    from markethall.payments.gateway.stripe.webhooks import StripeWebhooks

    api = StripeApi(settings.stripe_secret_key.get_secret_value(), settings.stripe_api_base)
    types = settings.stripe_payment_method_types
    intents = IntentOperations(api, tools.clock, types, settings.stripe_return_url or None)
    secrets = [one.get_secret_value().encode() for one in settings.stripe_webhook_secrets]
    return StripeGateway(api, intents, StripeWebhooks(secrets), types)


MANIFEST: Final = GatewayManifest(name="stripe", build=_build, settings=StripeSettings)
