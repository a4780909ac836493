"""Settings: whatever is wrong is one readable line, and no line repeats a secret."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from platformdirs import user_data_path

from markethall.inventory.contract import HOLD_AT_MOST
from markethall.settings import BadSettings, MigrationSettings, Settings, read_settings
from markethall.shared.tokens import generate_key
from markethall.topology import Context

PASSWORD = "hunter2-the-password"
SECRET = "0123456789abcdef-0123456789abcdef"
PRODUCTION = {
    "environment": "production",
    "secret": SECRET,
    "signing_key": generate_key(),
    "database_url": "postgresql://market@db/hall",
}

Read = Callable[..., Settings]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """From an environment that holds only what is given."""

    def from_environment(**given: str) -> Settings:
        for name in ("BCRYPT_COST", "RATE_LIMITS", "LOG_FORMAT"):
            monkeypatch.delenv(f"MARKETHALL_{name}", raising=False)
        for name, value in given.items():
            monkeypatch.setenv(f"MARKETHALL_{name.upper()}", value)
        return read_settings()

    return from_environment


def wrong(read: Read, **given: str) -> list[str]:
    with pytest.raises(BadSettings) as refused:
        read(**given)
    return refused.value.lines


def test_nothing_set_is_everything_in_one_process_for_trying(read: Read) -> None:
    settings = read()

    assert settings.serve == set(Context)
    assert (settings.storage, settings.environment) == ("sql", "development")
    assert (settings.database_pool_min, settings.database_pool_max) == (5, 20)
    assert settings.shows_docs


@pytest.mark.parametrize(
    "text",
    ["users,inventory", " users , inventory ,", '["users", "inventory"]', ' ["inventory","users"]'],
)
def test_a_list_is_written_with_commas_or_as_json(read: Read, text: str) -> None:
    assert read(serve=text).serve == {Context.USERS, Context.INVENTORY}


def test_proxies_are_networks(read: Read) -> None:
    settings = read(trusted_proxies="10.0.0.0/8, 192.0.2.7,2001:db8::/32")

    assert settings.trusted_proxies == ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32")


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("serve", "stalls", "'users'"),
        ("serve", "", "at least 1"),
        ("serve", "[oops", "JSON array"),
        ("remotes", "nowhere", "JSON object"),
        ("remotes", "[]", "dictionary"),
        ("remotes", '{"stalls": "http://x"}', "'users'"),
        ("remotes", '{"users": "ftp://x"}', "http"),
        ("remotes", '{"users": "http://x"}', "cannot be remote too"),
        ("storage", "disk", "'memory'"),
        ("environment", "prod", "'production'"),
        ("database_url", "nowhere", "postgresql://"),
        ("database_url", "mysql://db/hall", "postgresql://"),
        ("database_url", "postgresql://db:port/hall", "postgresql://"),
        ("database_urls", "postgresql://db/hall", "JSON object"),
        ("database_urls", '{"users": "sqlite:///x"}', "postgresql://"),
        ("database_pool_max", "1", "DATABASE_POOL_MIN"),
        ("database_pool_min", "0", "greater than or equal to 1"),
        ("database_pool_min", "many", "integer"),
        ("database_timeout", "0", "greater than 0"),
        ("database_timeout", "inf", "finite"),
        ("database_timeout", "nan", "finite"),
        ("hold_ttl", "-1", "greater than 0"),
        ("redis_url", "http://x", "redis://"),
        ("secret", "short", "at least 32"),
        ("secret", "a" * 64, "at least 32"),
        ("bcrypt_cost", "3", "greater than or equal to 4"),
        ("bcrypt_cost", "20", "less than or equal to 16"),
        ("trusted_proxies", "10.0.0.0/8,proxy", "'proxy'"),
        ("trusted_proxies", "10.0.0.0/99", "'10.0.0.0/99'"),
        ("body_limit", "10", "1024"),
        ("debug", "perhaps", "boolean"),
        ("log_level", "loud", "'info'"),
        ("admin_email", "admin@example.com", "together"),
    ],
)
def test_a_bad_setting_is_one_readable_line(read: Read, name: str, value: str, word: str) -> None:
    lines = wrong(read, **{name: value})

    assert len(lines) == 1
    assert lines[0].startswith("MARKETHALL_")
    assert word in lines[0]
    assert "\n" not in lines[0]
    if name != "serve" or value != "orders":
        assert lines[0].startswith(f"MARKETHALL_{name.upper()}")


def test_several_bad_settings_are_a_line_each(read: Read) -> None:
    lines = wrong(read, storage="disk", bcrypt_cost="x", log_level="loud", debug="perhaps")

    assert len(lines) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", f"mysql://market:{PASSWORD}@db/hall"),
        ("database_url", f"market:{PASSWORD}@db"),
        ("database_url", f"postgresql://market:{PASSWORD}@db:port/hall"),
        ("database_urls", f"postgresql://market:{PASSWORD}@db/hall"),
        ("database_urls", f'{{"users": "sqlite://market:{PASSWORD}@db/hall"}}'),
        ("database_urls", f'{{"postgresql://market:{PASSWORD}@db/hall": "users"}}'),
        ("database_urls", f'{{"users": ["{PASSWORD}"]}}'),
        ("redis_url", f"http://:{PASSWORD}@redis"),
        ("secret", PASSWORD),
        ("admin_password", PASSWORD),
    ],
)
def test_no_line_repeats_a_secret(read: Read, name: str, value: str) -> None:
    lines = wrong(read, **{name: value})

    assert lines
    assert PASSWORD not in "\n".join(lines)


def test_settings_hide_their_secrets_when_they_are_shown(read: Read) -> None:
    settings = read(
        database_url=f"postgresql://market:{PASSWORD}@db/hall",
        database_urls=f'{{"users": "postgresql://users:{PASSWORD}@db/hall"}}',
        redis_url=f"redis://:{PASSWORD}@redis",
        secret=f"{PASSWORD}-0123456789-abcdef",
        admin_email="admin@example.com",
        admin_password=PASSWORD,
    )

    assert PASSWORD not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_each_context_has_its_own_database_or_the_one_of_all(read: Read) -> None:
    settings = read(
        database_url="postgresql://all/hall", database_urls='{"users": "postgresql://own/users"}'
    )

    assert settings.database_of(Context.USERS) == "postgresql://own/users"
    assert settings.database_of(Context.ORDERS) == "postgresql://all/hall"


def test_a_context_is_local_where_it_is_served_and_remote_elsewhere(read: Read) -> None:
    remotes = '{"users": "http://u", "inventory": "http://i", "payments": "https://p"}'

    settings = read(serve="orders", remotes=remotes, redis_url="redis://redis:6379/0")

    assert settings.mode(Context.ORDERS) == "local"
    assert settings.mode(Context.USERS) == "remote"


# Production


def test_production_starts_with_what_it_needs(read: Read) -> None:
    settings = read(**PRODUCTION)

    assert not settings.shows_docs
    assert read(**PRODUCTION, docs="on").shows_docs


def test_production_asks_for_everything_at_once(read: Read) -> None:
    lines = wrong(read, environment="production", rate_limits="off", debug="true", bcrypt_cost="4")

    names = [line.partition(":")[0].removeprefix("MARKETHALL_") for line in lines]
    assert names == [
        "SECRET", "SIGNING_KEY", "DATABASE_URL", "RATE_LIMITS", "DEBUG", "BCRYPT_COST",
    ]  # fmt: skip


def test_production_refuses_what_forgets(read: Read) -> None:
    (line,) = wrong(read, **PRODUCTION, storage="memory")

    assert line.startswith("MARKETHALL_STORAGE")


def test_production_wants_a_signing_key_only_where_tokens_are_signed(read: Read) -> None:
    settings = read(
        environment="production",
        secret=SECRET,
        database_url="postgresql://db/hall",
        serve="inventory",
        remotes='{"users": "http://users:8000"}',
    )

    assert settings.serve == {Context.INVENTORY}


def test_production_wants_a_service_key_where_a_neighbour_is_called(read: Read) -> None:
    leaves = {name: f"http://{name}:8000" for name in ("users", "inventory", "payments")}
    apart = {
        **PRODUCTION,
        "serve": "orders",
        "remotes": json.dumps(leaves),
        "redis_url": "redis://redis:6379/0",
    }

    (line,) = wrong(read, **apart)

    assert line.startswith("MARKETHALL_SERVICE_KEY")
    assert read(**apart, service_key="a key").calls_out


def test_production_wants_to_know_where_the_tokens_come_from(read: Read) -> None:
    (line,) = wrong(read, **PRODUCTION, serve="inventory")

    assert line == "MARKETHALL_REMOTES: users: is required to read its public keys"


def test_production_names_the_contexts_without_a_database(read: Read) -> None:
    (line,) = wrong(
        read,
        environment="production",
        secret=SECRET,
        signing_key=PRODUCTION["signing_key"],
        database_urls='{"users": "postgresql://db/users", "orders": "postgresql://db/orders"}',
    )

    assert "inventory, payments" in line


# What alembic reads


def test_alembic_is_told_which_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETHALL_DATABASE_URL", "postgresql://all/hall")
    monkeypatch.setenv("MARKETHALL_DATABASE_URLS", '{"users": "postgresql://own/users"}')

    settings = MigrationSettings()

    assert settings.url_of(Context.USERS) == "postgresql://own/users"
    assert settings.url_of(Context.ORDERS) == "postgresql://all/hall"


def test_alembic_without_a_database_says_so() -> None:
    with pytest.raises(BadSettings, match="MARKETHALL_DATABASE_URL"):
        MigrationSettings().url_of(Context.USERS)


def test_the_data_directory_may_begin_at_home(read: Read) -> None:
    assert read(data_dir="~/hall").home == Path.home() / "hall"


def test_the_data_directory_defaults_to_the_former_one_where_it_exists(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    former = tmp_path / ".local" / "share" / "markethall"

    assert read().home == user_data_path("markethall")
    former.mkdir(parents=True)
    assert read().home == former


def test_orders_never_asks_for_a_longer_hold_than_inventory_gives() -> None:
    longest = HOLD_AT_MOST.total_seconds()

    assert read_settings(hold_ttl=longest).hold_ttl == longest
    with pytest.raises(BadSettings, match=r"MARKETHALL_HOLD_TTL: .* less than or equal"):
        read_settings(hold_ttl=longest + 1)
