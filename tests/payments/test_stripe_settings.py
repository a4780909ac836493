"""The settings of Stripe, its secrets in logs, and its minor units."""

import subprocess
import sys
from typing import Any

import pytest

from markethall.payments.gateway.stripe.amounts import (
    AmountNotSupported,
    from_stripe_amount,
    to_stripe_amount,
)
from markethall.payments.gateway.stripe.manifest import StripeSettings
from markethall.shared.composition.settings import SettingsError, read_one
from markethall.shared.kernel.money import EXPONENT_BY_CURRENCY, Money
from markethall.shared.observability.log import redact

LIVE_KEY = "sk_live_0123456789"
TEST_KEY = "rk_test_0123456789"
VALUES: dict[str, Any] = {
    "stripe_secret_key": LIVE_KEY,
    "stripe_webhook_secrets": "whsec_0123456789",
}


def read(**values: Any) -> StripeSettings:
    return read_one(StripeSettings, VALUES | values)


def test_defaults_are_for_cards() -> None:
    settings = read()

    assert settings.stripe_payment_method_types == ("card",)
    assert settings.stripe_api_base == "https://api.stripe.com"
    assert settings.lax_settings == {}


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"stripe_secret_key": "pk_live_0123456789"}, "STRIPE_SECRET_KEY"),
        ({"stripe_secret_key": ""}, "STRIPE_SECRET_KEY"),
        ({"stripe_webhook_secrets": ""}, "STRIPE_WEBHOOK_SECRETS"),
        ({"stripe_webhook_secrets": "secret"}, "STRIPE_WEBHOOK_SECRETS"),
        ({"stripe_webhook_secrets": "whsec_0123456789," * 3}, "STRIPE_WEBHOOK_SECRETS"),
        ({"stripe_payment_method_types": "sepa_debit"}, "STRIPE_PAYMENT_METHOD_TYPES"),
        ({"stripe_payment_method_types": ""}, "STRIPE_PAYMENT_METHOD_TYPES"),
        ({"stripe_return_url": "shop.example"}, "STRIPE_RETURN_URL"),
        ({"stripe_return_url": "javascript:alert(1)"}, "STRIPE_RETURN_URL"),
        ({"stripe_return_url": "https://shop.example/#paid"}, "STRIPE_RETURN_URL"),
    ],
)
def test_invalid_setting_is_named(values: dict[str, Any], name: str) -> None:
    with pytest.raises(SettingsError, match=f"MARKETHALL_{name}") as error:
        read(**values)

    assert "0123456789" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"stripe_secret_key": TEST_KEY}, "STRIPE_SECRET_KEY"),
        ({"stripe_api_base": "https://example.com"}, "STRIPE_API_BASE"),
        ({"stripe_return_url": "http://shop.example"}, "STRIPE_RETURN_URL"),
    ],
)
def test_production_refuses(values: dict[str, Any], name: str) -> None:
    assert read(**values)

    with pytest.raises(SettingsError, match=f"MARKETHALL_{name}"):
        read(environment="production", **values)


def test_test_key_in_production_is_allowed_by_name() -> None:
    settings = read(
        environment="production", stripe_secret_key=TEST_KEY, stripe_test_key_in_production=True
    )

    assert list(settings.lax_settings) == ["MARKETHALL_STRIPE_TEST_KEY_IN_PRODUCTION"]
    assert read(environment="production", stripe_test_key_in_production=True).lax_settings == {}


def test_secrets_are_not_shown() -> None:
    settings = read()

    assert "0123456789" not in f"{settings!r} {settings} {settings.model_dump()}"


@pytest.mark.parametrize(
    "secret",
    [
        LIVE_KEY,
        TEST_KEY,
        "rk_live_51Abc",
        "whsec_0123456789",
        "pi_3Nabc_secret_Xyz",
        "pi_3N_secret_a",
    ],
)
def test_secrets_are_redacted_in_logs(secret: str) -> None:
    assert redact(f"no such key: {secret}, said Stripe") == "no such key: ***, said Stripe"


def test_other_words_are_not_redacted() -> None:
    text = "pi_3Nabc ch_test_abc risk_live_abc pm_card_visa"

    assert redact(text) == text


def test_sdk_is_imported_only_when_the_gateway_is_built() -> None:
    code = "import sys, markethall.payments.container, markethall.payments.gateway.stripe.manifest"
    check = "; print([name for name in sys.modules if name.split('.')[0] == 'stripe'])"

    done = subprocess.run(
        [sys.executable, "-c", code + check], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("amount", "currency", "at_stripe"),
    [
        (1999, "EUR", 1999),
        (500, "JPY", 500),
        (7, "XOF", 7),
        (5, "ISK", 500),
        (5, "UGX", 500),
        (1999, "HUF", 1999),
        (1999, "TWD", 1999),
        (5120, "KWD", 5120),
        (500, "MGA", 5),
    ],
)
def test_amounts_convert_in_both_directions(amount: int, currency: str, at_stripe: int) -> None:
    money = Money(amount=amount, currency=currency)

    assert to_stripe_amount(money) == at_stripe
    assert from_stripe_amount(at_stripe, currency.lower()) == money


@pytest.mark.parametrize(
    ("amount", "currency"),
    [(5124, "KWD"), (1, "TND"), (550, "MGA"), (1000, "CLF"), (1000, "IQD"), (1000, "LYD")],
)
def test_amount_is_never_rounded(amount: int, currency: str) -> None:
    with pytest.raises(AmountNotSupported):
        to_stripe_amount(Money(amount=amount, currency=currency))


@pytest.mark.parametrize(("amount", "currency"), [(550, "isk"), (1, "ugx"), (1, "xxx"), (1, "")])
def test_amount_of_stripe_is_never_rounded(amount: int, currency: str) -> None:
    with pytest.raises(AmountNotSupported):
        from_stripe_amount(amount, currency)


@pytest.mark.parametrize("currency", sorted(EXPONENT_BY_CURRENCY))
def test_whole_units_convert_in_every_currency_of_stripe(currency: str) -> None:
    money = Money(amount=700 * 10 ** EXPONENT_BY_CURRENCY[currency], currency=currency)
    try:
        at_stripe = to_stripe_amount(money)
    except AmountNotSupported:
        assert EXPONENT_BY_CURRENCY[currency] > 2
        return

    assert from_stripe_amount(at_stripe, currency.lower()) == money
