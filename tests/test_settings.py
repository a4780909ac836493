"""Test settings: each error is one readable line without secrets."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from platformdirs import user_data_path
from pydantic_settings import BaseSettings

from markethall.contexts import context_names, topology
from markethall.inventory.contract import MAX_RESERVATION_DURATION
from markethall.orders.settings import OrdersSettings
from markethall.process_container import configured_limits
from markethall.settings import MigrationSettings, Settings, process, read_settings, validation
from markethall.settings.validation import lax_settings, misspelled_variables
from markethall.shared.composition.manifest import Subscription
from markethall.shared.composition.settings import SettingsError, read_one
from markethall.shared.composition.topology import Topology
from markethall.shared.http.rate_limits import RATE_LIMITS, RateLimit
from markethall.shared.security.access_tokens import generate_private_key

PASSWORD = "hunter2-the-password"
SECRET = "0123456789abcdef-0123456789abcdef"
PRODUCTION = {
    "environment": "production",
    "secret_key": SECRET,
    "access_token_private_key": generate_private_key(),
    "database_url": "postgresql://market@db/market",
    "sandbox_in_production": "true",
    "sandbox_webhook_secret": SECRET[::-1],
}

Read = Callable[..., Settings]


@pytest.fixture
def read_from_environment(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Return a function that reads settings from an environment with only the given variables."""

    def read(**given: str) -> Settings:
        for name in ("BCRYPT_COST", "RATE_LIMITS", "LOG_FORMAT"):
            monkeypatch.delenv(f"MARKETHALL_{name}", raising=False)
        for name, value in given.items():
            monkeypatch.setenv(f"MARKETHALL_{name.upper()}", value)
        return read_settings()

    return read


def errors_of(read_from_environment: Read, **given: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        read_from_environment(**given)
    return refused.value.lines


def test_defaults_serve_all_contexts_in_one_process(read_from_environment: Read) -> None:
    settings = read_from_environment()

    assert settings.contexts == set(context_names())
    assert (settings.storage, settings.environment) == ("sql", "development")
    assert (settings.database_pool_min, settings.database_pool_max) == (5, 20)
    assert settings.serves_docs


@pytest.mark.parametrize(
    "text",
    ["users,inventory", " users , inventory ,", '["users", "inventory"]', ' ["inventory","users"]'],
)
def test_lists_accept_commas_or_json(read_from_environment: Read, text: str) -> None:
    # users publishes events for orders, which is served elsewhere
    settings = read_from_environment(contexts=text, redis_url="redis://r")

    assert settings.contexts == {"users", "inventory"}


def test_trusted_proxies_are_networks(read_from_environment: Read) -> None:
    settings = read_from_environment(trusted_proxies="10.0.0.0/8, 192.0.2.7,2001:db8::/32")

    assert settings.trusted_proxies == ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32")


def test_default_rate_limits_of_the_settings_are_those_of_the_gateway(
    read_from_environment: Read,
) -> None:
    assert configured_limits(read_from_environment()) == RATE_LIMITS


@pytest.mark.parametrize("name", RATE_LIMITS)
def test_each_rate_limit_has_a_setting(read_from_environment: Read, name: str) -> None:
    setting = f"rate_limit_{name.replace('-', '_')}"

    limits = configured_limits(read_from_environment(**{setting: " 7/30 "}))

    assert limits == {**RATE_LIMITS, name: RateLimit(name, quota=7, window_seconds=30)}


def test_cors_origins_are_exact_origins(read_from_environment: Read) -> None:
    origins = ("https://shop.example", "http://localhost:3000", "http://[::1]:8080", "https://x:80")

    assert read_from_environment().cors_origins == ()
    assert read_from_environment(cors_origins=", ".join(origins)).cors_origins == origins


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("contexts", "shops", "one of the contexts users"),
        ("contexts", "", "at least 1"),
        ("contexts", "[oops", "JSON array"),
        ("context_urls", "nowhere", "JSON object"),
        ("context_urls", "[]", "dictionary"),
        ("context_urls", '{"shops": "http://x"}', "one of the contexts users"),
        ("context_urls", '{"users": "ftp://x"}', "http"),
        ("context_urls", '{"users": "http://x"}', "cannot be remote too"),
        ("storage", "disk", "'memory'"),
        ("environment", "prod", "'production'"),
        ("database_url", "nowhere", "postgresql://"),
        ("database_url", "mysql://db/market", "postgresql://"),
        ("database_url", "postgresql://db:port/market", "postgresql://"),
        ("database_urls", "postgresql://db/market", "JSON object"),
        ("database_urls", '{"users": "sqlite:///x"}', "postgresql://"),
        ("database_pool_max", "1", "DATABASE_POOL_MIN"),
        ("database_pool_min", "0", "greater than or equal to 1"),
        ("database_pool_min", "many", "integer"),
        ("database_timeout", "0", "greater than 0"),
        ("database_timeout", "inf", "finite"),
        ("database_timeout", "nan", "finite"),
        ("reservation_ttl_seconds", "-1", "greater than 0"),
        ("redis_url", "http://x", "redis://"),
        ("secret_key", "short", "at least 32"),
        ("secret_key", "a" * 64, "at least 32"),
        ("bcrypt_cost", "3", "greater than or equal to 4"),
        ("bcrypt_cost", "20", "less than or equal to 16"),
        ("trusted_proxies", "10.0.0.0/8,proxy", "'proxy'"),
        ("trusted_proxies", "10.0.0.0/99", "'10.0.0.0/99'"),
        ("rate_limit_requests", "600", "600/60"),
        ("rate_limit_searches", "0/60", "requests/seconds"),
        ("rate_limit_login", "20/0", "requests/seconds"),
        ("rate_limit_login", "-20/60", "requests/seconds"),
        ("rate_limit_register", "10/minute", "requests/seconds"),
        ("rate_limit_register", "\u0661/60", "requests/seconds"),
        ("rate_limit_change_password", "10/86401", "86400"),
        ("rate_limit_change_password", "10000000/60", "9999999"),
        ("cors_origins", "*", "must be an origin such as https://shop.example"),
        ("cors_origins", "https://shop.example/", "final slash"),
        ("cors_origins", "https://shop.example/shop", "path"),
        ("cors_origins", "https://*.shop.example", "wildcard"),
        ("cors_origins", "https://Shop.example", "lower case"),
        ("cors_origins", "https://shop.example:443", "default port"),
        ("cors_origins", "http://localhost:80", "default port"),
        ("cors_origins", "http://localhost:65536", "origin"),
        ("cors_origins", "ftp://shop.example", "origin"),
        ("cors_origins", "shop.example", "origin"),
        ("cors_origins", "null", "origin"),
        ("cors_origins", "https://user@shop.example", "origin"),
        ("max_body_bytes", "10", "1024"),
        ("debug", "perhaps", "boolean"),
        ("log_level", "loud", "'info'"),
        ("admin_email", "admin@example.com", "together"),
    ],
)
def test_invalid_setting_is_one_readable_line(
    read_from_environment: Read, name: str, value: str, word: str
) -> None:
    lines = errors_of(read_from_environment, **{name: value})

    assert len(lines) == 1
    assert word in lines[0]
    assert "\n" not in lines[0]
    assert lines[0].startswith(f"MARKETHALL_{name.upper()}")


def test_each_invalid_setting_has_its_own_line(read_from_environment: Read) -> None:
    lines = errors_of(
        read_from_environment, storage="disk", bcrypt_cost="x", log_level="loud", debug="perhaps"
    )

    assert len(lines) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", f"mysql://market:{PASSWORD}@db/market"),
        ("database_url", f"market:{PASSWORD}@db"),
        ("database_url", f"postgresql://market:{PASSWORD}@db:port/market"),
        ("database_urls", f"postgresql://market:{PASSWORD}@db/market"),
        ("database_urls", f'{{"users": "sqlite://market:{PASSWORD}@db/market"}}'),
        ("database_urls", f'{{"postgresql://market:{PASSWORD}@db/market": "users"}}'),
        ("database_urls", f'{{"users": ["{PASSWORD}"]}}'),
        ("redis_url", f"http://:{PASSWORD}@redis"),
        ("secret_key", PASSWORD),
        ("admin_password", PASSWORD),
    ],
)
def test_error_lines_hide_secrets(read_from_environment: Read, name: str, value: str) -> None:
    lines = errors_of(read_from_environment, **{name: value})

    assert lines
    assert PASSWORD not in "\n".join(lines)


def test_settings_repr_hides_secrets(read_from_environment: Read) -> None:
    settings = read_from_environment(
        database_url=f"postgresql://market:{PASSWORD}@db/market",
        database_urls=f'{{"users": "postgresql://users:{PASSWORD}@db/market"}}',
        redis_url=f"redis://:{PASSWORD}@redis",
        secret_key=f"{PASSWORD}-0123456789-abcdef",
        admin_email="admin@example.com",
        admin_password=PASSWORD,
    )

    assert PASSWORD not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_context_database_url_falls_back_to_common(read_from_environment: Read) -> None:
    settings = read_from_environment(
        database_url="postgresql://all/market", database_urls='{"users": "postgresql://own/users"}'
    )

    assert settings.database_url_of("users") == "postgresql://own/users"
    assert settings.database_url_of("orders") == "postgresql://all/market"


def test_context_is_local_if_served_else_remote(read_from_environment: Read) -> None:
    remotes = '{"users": "http://u", "inventory": "http://i", "payments": "https://p"}'

    settings = read_from_environment(
        contexts="orders", context_urls=remotes, redis_url="redis://redis:6379/0"
    )

    assert settings.mode("orders") == "local"
    assert settings.mode("users") == "remote"


def test_subscriber_needs_url_of_publisher_also_with_a_service_key_of_its_own(
    read_from_environment: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = Subscription("orders.order_paid", "on_order_paid")
    manifests = [
        replace(manifest, subscriptions=(subscription,))
        if manifest.name == "inventory"
        else manifest
        for manifest in topology().manifests
    ]
    changed = Topology(manifests)
    for module in (process, validation):
        monkeypatch.setattr(module, "topology", lambda: changed)
    split = {"contexts": "inventory", "redis_url": "redis://redis"}

    without_key = errors_of(read_from_environment, **split)
    with_key = errors_of(read_from_environment, **split, service_token_private_key="a key")
    with_url = read_from_environment(**split, context_urls='{"orders": "http://orders:8000"}')
    in_production = errors_of(
        read_from_environment,
        **PRODUCTION | split,
        context_urls='{"users": "http://users:8000"}',
    )

    problem = "MARKETHALL_CONTEXT_URLS: orders: is required to verify its events"
    assert without_key == with_key == in_production == [problem]
    assert with_url.remote_publishers_of("inventory") == {"orders"}


# Production


def test_production_starts_with_required_settings(read_from_environment: Read) -> None:
    settings = read_from_environment(**PRODUCTION)

    assert not settings.serves_docs
    assert read_from_environment(**PRODUCTION, docs="on").serves_docs


def test_production_reports_all_missing_settings(read_from_environment: Read) -> None:
    lines = errors_of(
        read_from_environment,
        environment="production",
        rate_limits="off",
        debug="true",
        bcrypt_cost="4",
    )

    names = [line.partition(":")[0].removeprefix("MARKETHALL_") for line in lines]
    assert names == [
        "SECRET_KEY", "ACCESS_TOKEN_PRIVATE_KEY", "DATABASE_URL", "RATE_LIMITS", "DEBUG",
        "BCRYPT_COST", "SANDBOX_IN_PRODUCTION", "SANDBOX_WEBHOOK_SECRET",
    ]  # fmt: skip


def test_production_rejects_memory_storage(read_from_environment: Read) -> None:
    (line,) = errors_of(read_from_environment, **PRODUCTION, storage="memory")

    assert line.startswith("MARKETHALL_STORAGE")


def test_production_requires_signing_key_only_for_users(read_from_environment: Read) -> None:
    settings = read_from_environment(
        environment="production",
        secret_key=SECRET,
        database_url="postgresql://db/market",
        contexts="inventory",
        context_urls='{"users": "http://users:8000"}',
    )

    assert settings.contexts == {"inventory"}


def test_production_requires_service_key_for_remote_calls(read_from_environment: Read) -> None:
    remote_urls = {name: f"http://{name}:8000" for name in ("users", "inventory", "payments")}
    split = {
        **PRODUCTION,
        "contexts": "orders",
        "context_urls": json.dumps(remote_urls),
        "redis_url": "redis://redis:6379/0",
    }

    (line,) = errors_of(read_from_environment, **split)

    assert line.startswith("MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY")
    assert read_from_environment(**split, service_token_private_key="a key").has_remote_dependencies


def test_production_requires_service_key_for_events(read_from_environment: Read) -> None:
    urls = json.dumps({name: f"http://{name}:8000" for name in ("users", "orders")})
    split = {
        **PRODUCTION,
        "contexts": "payments",
        "context_urls": urls,
        "redis_url": "redis://redis",
    }

    lines = errors_of(read_from_environment, **split)

    assert [line for line in lines if "SERVICE_TOKEN_PRIVATE_KEY" in line]
    assert read_from_environment(**split, service_token_private_key="a key").has_remote_subscribers


def test_production_requires_jwks_source(read_from_environment: Read) -> None:
    (line,) = errors_of(read_from_environment, **PRODUCTION, contexts="inventory")

    assert line == "MARKETHALL_CONTEXT_URLS: users: is required to read its public keys"


def test_production_names_contexts_without_a_database(read_from_environment: Read) -> None:
    (line,) = errors_of(
        read_from_environment,
        environment="production",
        secret_key=SECRET,
        access_token_private_key=PRODUCTION["access_token_private_key"],
        sandbox_in_production="true",
        sandbox_webhook_secret=PRODUCTION["sandbox_webhook_secret"],
        database_urls='{"users": "postgresql://db/users", "orders": "postgresql://db/orders"}',
    )

    assert "inventory, payments" in line


# Alembic


def test_alembic_uses_configured_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETHALL_DATABASE_URL", "postgresql://all/market")
    monkeypatch.setenv("MARKETHALL_DATABASE_URLS", '{"users": "postgresql://own/users"}')

    settings = MigrationSettings()

    assert settings.database_url_of("users") == "postgresql://own/users"
    assert settings.database_url_of("orders") == "postgresql://all/market"


def test_alembic_without_database_reports_it() -> None:
    with pytest.raises(SettingsError, match="MARKETHALL_DATABASE_URL"):
        MigrationSettings().database_url_of("users")


def test_data_directory_expands_home(read_from_environment: Read) -> None:
    assert read_from_environment(data_dir="~/market").data_directory == Path.home() / "market"


def test_existing_former_data_directory_is_used(
    read_from_environment: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    former = tmp_path / ".local" / "share" / "markethall"

    assert read_from_environment().data_directory == user_data_path("markethall")
    former.mkdir(parents=True)
    assert read_from_environment().data_directory == former


def test_data_directory_of_root_is_outside_its_home(
    read_from_environment: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / ".local" / "share" / "markethall").mkdir(parents=True)

    assert read_from_environment().data_directory == Path("/var/lib/markethall")
    assert read_from_environment(data_dir="~/market").data_directory == tmp_path / "market"


def test_reservation_ttl_is_within_inventory_maximum() -> None:
    longest = MAX_RESERVATION_DURATION.total_seconds()

    assert (
        read_one(OrdersSettings, {"reservation_ttl_seconds": longest}).reservation_ttl_seconds
        == longest
    )
    with pytest.raises(
        SettingsError, match=r"MARKETHALL_RESERVATION_TTL_SECONDS: .* less than or equal"
    ):
        read_settings(reservation_ttl_seconds=longest + 1)


def test_production_refuses_the_sandbox_unless_allowed(read_from_environment: Read) -> None:
    without = {**PRODUCTION, "sandbox_in_production": "false"}
    other_contexts = {
        "contexts": "users,inventory",
        "redis_url": "redis://r",
        "service_token_private_key": generate_private_key(),
    }

    (line,) = errors_of(read_from_environment, **without)

    assert line == (
        "MARKETHALL_SANDBOX_IN_PRODUCTION: the payment provider sandbox takes no money; set true to"
        " run a demonstration, or name other providers in MARKETHALL_PAYMENT_PROVIDERS"
    )
    assert set(read_from_environment(**without, **other_contexts).by_context) == {
        "users",
        "inventory",
    }


def test_lax_settings_are_named_in_production_only(read_from_environment: Read) -> None:
    lax = {
        "docs": "on",
        "issuer": "http://shop.example",
        "trusted_proxies": "10.0.0.0/8,0.0.0.0/0",
        "cors_origins": "https://shop.example,http://shop.example",
        "log_level": "error",
    }
    strict = {
        "metrics": "on",
        "docs": "auto",
        "issuer": "https://shop.example",
        "trusted_proxies": "10.0.0.0/8",
        "cors_origins": "https://shop.example",
        "log_level": "info",
    }

    assert list(lax_settings(read_from_environment(**PRODUCTION, **lax))) == [
        "MARKETHALL_METRICS",
        "MARKETHALL_DOCS",
        "MARKETHALL_ISSUER",
        "MARKETHALL_TRUSTED_PROXIES",
        "MARKETHALL_CORS_ORIGINS",
        "MARKETHALL_LOG_LEVEL",
        "MARKETHALL_SANDBOX_IN_PRODUCTION",
    ]
    assert list(lax_settings(read_from_environment(**PRODUCTION, **strict))) == [
        "MARKETHALL_SANDBOX_IN_PRODUCTION"
    ]
    assert lax_settings(read_from_environment(environment="development", **lax)) == {}


def test_caller_without_public_key_is_named_in_production(read_from_environment: Read) -> None:
    urls = {name: f"http://{name}:8000" for name in ("users", "orders")}
    split = {**PRODUCTION, "contexts": "inventory", "issuer": "https://shop.example"}
    without = {**split, "context_urls": json.dumps({"users": urls["users"]})}

    assert lax_settings(read_from_environment(**without, metrics="off")) == {
        "MARKETHALL_CONTEXT_URLS": "calls of orders are rejected: no public key"
    }
    urls_given = {**split, "context_urls": json.dumps(urls)}
    assert lax_settings(read_from_environment(**urls_given, metrics="off")) == {}


def test_metrics_port_is_not_lax_and_needs_metrics(read_from_environment: Read) -> None:
    given = {**PRODUCTION, "metrics_port": "9464", "issuer": "https://shop.example"}

    assert "MARKETHALL_METRICS" not in lax_settings(read_from_environment(**given))
    with pytest.raises(SettingsError, match="MARKETHALL_METRICS_PORT: MARKETHALL_METRICS is off"):
        read_from_environment(**given, metrics="off")


def test_one_newline_at_the_end_of_a_secret_is_removed(read_from_environment: Read) -> None:
    settings = read_from_environment(
        storage="memory", secret_key=f"{SECRET}\n", redis_url="redis://u:p@host/0\r\n"
    )
    two = read_from_environment(secret_key=f"{SECRET}\n\n")

    assert settings.secret_key.get_secret_value() == SECRET
    assert settings.redis_url.get_secret_value() == "redis://u:p@host/0"
    assert two.secret_key.get_secret_value() == f"{SECRET}\n"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("DATABASE_ULR", "DATABASE_URL"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("SECRETKEY", "SECRET_KEY"),
        ("CONTEXT", "CONTEXTS"),
        ("BCRYPT_COSTS", "BCRYPT_COST"),
        ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
        ("STORGE", "STORAGE"),
    ],
)
def test_misspelled_setting_names_the_nearest_one(
    read_from_environment: Read, name: str, nearest: str
) -> None:
    (line,) = errors_of(read_from_environment, storage="memory", **{name: PASSWORD})

    assert line == f"MARKETHALL_{name}: is not a setting; did you mean MARKETHALL_{nearest}?"


def test_every_setting_and_variables_of_others_are_accepted() -> None:
    contexts = topology().contexts.values()
    classes: list[type[BaseSettings]] = [Settings, *(manifest.settings for manifest in contexts)]
    names = {name for settings_class in classes for name in settings_class.model_fields}
    of_others = [
        "MARKETHALL_HOST",
        "MARKETHALL_PORT",
        "markethall_database_url",
        "MARKETHALL_TEST_DATABASE_URL",
        "MARKETHALL_USERS_SERVICE_HOST",
        "MARKETHALL_USERS_SERVICE_PORT_HTTP",
        "MARKETHALL_USERS_PORT_8000_TCP_ADDR",
        "MARKETHALL_SOMETHING_ELSE",
        "DATABASE_ULR",
    ]

    given = [f"MARKETHALL_{name.upper()}" for name in names]
    assert misspelled_variables([*given, *of_others], names) == []
