"""Test that each process of each topology can build everything that its containers provide."""

import re
from asyncio import isfuture
from collections.abc import Iterator
from dataclasses import replace
from inspect import isawaitable
from pathlib import Path
from typing import Any

import pytest
from dependency_injector import containers, errors, providers

from markethall import container as root
from markethall.container import ApplicationContainer
from markethall.contexts import context_names, topology
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import Settings, read_settings
from markethall.shared.composition.providers import singleton
from markethall.shared.composition.settings import SettingsError
from markethall.shared.composition.topology import Topology
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.pagination import Cursors
from markethall.users.container import UsersContainer
from markethall.users.contract import Register
from tests.containers import orders_of, users_of
from tests.users.conftest import attempt_without_key

MONOLITH = context_names()
# the monolith without and with Redis, and each context in its own process, which needs Redis to
# exchange events with the others
PROCESSES = [
    (MONOLITH, ""),
    (MONOLITH, "redis://127.0.0.1:1/0"),
    *(((context,), "redis://127.0.0.1:1/0") for context in MONOLITH),
]
NEED_POSTGRES = {"postgres", "sql_persistence"}


def settings_of(served: tuple[str, ...], folder: Path, **given: Any) -> Settings:
    others = set(MONOLITH) - set(served)
    return read_settings(
        contexts=served,
        context_urls=dict.fromkeys(others, "http://127.0.0.1:1"),
        database_url="postgresql://user@127.0.0.1:1/unreachable",
        data_dir=folder,
        **given,
    )


def container_of(settings: Settings) -> ApplicationContainer:
    return ApplicationContainer(settings, load_or_create_secrets(settings))


def build_all(container: containers.Container) -> tuple[dict[str, Any], set[str]]:
    """Call all providers. Return the built objects by provider name, and the failed providers."""
    built: dict[str, Any] = {}
    failed = set()
    for name, provider in container.providers.items():
        try:
            built[name] = provider()
        except (LookupError, ValueError):
            failed.add(name)
    return built, failed


def missing_keys(settings: Settings) -> Iterator[str]:
    """Yield the names of the providers that need a private key which this process does not have."""
    if "users" not in settings.contexts:
        yield "access_token_signer"
    if not (settings.has_remote_dependencies or settings.has_remote_subscribers):
        yield "service_signer"


@pytest.mark.parametrize("storage", ["memory", "sql"])
@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize(("served", "redis"), PROCESSES)
async def test_every_provider_builds(
    served: tuple[str, ...], redis: str, cache: str, storage: str, tmp_path: Path
) -> None:
    settings = settings_of(served, tmp_path, storage=storage, cache=cache, redis_url=redis)
    container = container_of(settings)

    shared, failed = build_all(container.process)
    assert failed == set(missing_keys(settings))
    assert set(container.contexts) == set(served)
    for context in container.contexts.values():
        built, failed = build_all(context)
        assert failed == (NEED_POSTGRES & set(context.providers) if storage == "memory" else set())
        assert {"settings", "persistence", "database", "idempotency", "counters"} <= set(built)
        assert not [name for name, part in built.items() if isfuture(part) or isawaitable(part)]
        assert build_all(context)[0].keys() == built.keys()
    assert not [name for name, part in shared.items() if isfuture(part) or isawaitable(part)]
    await container.close()


async def test_provider_builds_one_object_for_each_container(tmp_path: Path) -> None:
    settings = settings_of(MONOLITH, tmp_path, storage="memory")
    one, other = container_of(settings), container_of(settings)

    for context in MONOLITH:
        first, again = build_all(one.contexts[context])[0], build_all(one.contexts[context])[0]
        assert all(first[name] is again[name] for name in first)
        separate = build_all(other.contexts[context])[0]
        assert separate["persistence"] is not first["persistence"]
        assert separate["database"] is not first["database"]
    assert one.process.databases() is not other.process.databases()


async def test_replaced_part_reaches_what_is_built_from_it(tmp_path: Path) -> None:
    settings = settings_of(MONOLITH, tmp_path, storage="memory")
    container, other = container_of(settings), container_of(settings)
    command = Register(username="ada", email="ada@example.com", password="a long enough one")
    ctx = system_context("test")
    ada = await users_of(other).accounts().register(ctx, command, attempt_without_key())

    users_of(container).users.override(users_of(other).users())

    ctx = ctx.model_copy(update={"caller": "orders"})
    customer = await orders_of(container).users().get_active_customer(ctx, ada.user_id)
    assert customer.user_id == ada.user_id


async def test_context_of_another_process_has_no_container(tmp_path: Path) -> None:
    settings = settings_of(("orders",), tmp_path, storage="memory", redis_url="redis://127.0.0.1:1")
    container = container_of(settings)

    with pytest.raises(SettingsError, match="this needs users, which is not served"):
        users_of(container)
    with pytest.raises(SettingsError, match="this needs orders, which is not served"):
        container.context("orders", UsersContainer)


def test_container_lacks_a_context_that_the_manifest_does_not_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifests = [
        replace(each, calls={"users": each.calls["users"]}) if each.name == "orders" else each
        for each in topology().manifests
    ]
    settings = settings_of(MONOLITH, tmp_path, storage="memory")
    changed = Topology(manifests)
    monkeypatch.setattr(root, "topology", lambda: changed)

    with pytest.raises(errors.Error) as raised:
        container_of(settings)

    undefined = set(re.findall(r'"(OrdersContainer\.\w+)"', str(raised.value)))
    assert undefined == {"OrdersContainer.inventory", "OrdersContainer.payments"}


def test_mypy_compares_what_is_injected_with_the_constructor() -> None:
    text = providers.Object("no bytes")
    wrong = singleton(Cursors, text)  # type: ignore[arg-type]  # unused if mypy compared nothing

    with pytest.raises(TypeError):
        wrong()
