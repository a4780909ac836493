"""The root container: the one place that knows every context, and who listens to what."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from dependency_injector import containers, providers

from markethall.inventory.container import InventoryContainer
from markethall.inventory.contract import (
    Catalogue,
    Categories,
    Imports,
    Inventory,
    Stockroom,
    Warehouses,
)
from markethall.keys import Secrets
from markethall.orders.container import OrdersContainer
from markethall.orders.contract import (
    OrderCancelled,
    OrderExpired,
    OrderFulfilled,
    OrderPaid,
    Orders,
)
from markethall.payments.container import PaymentsContainer
from markethall.payments.contract import (
    PaymentCaptured,
    PaymentDesk,
    PaymentFailed,
    PaymentRefunded,
    Payments,
)
from markethall.settings import Settings
from markethall.shared.cache import CoherentCache, open_cache
from markethall.shared.clock import Clock, utc_now
from markethall.shared.db import Pools, PoolSize, Postgres
from markethall.shared.events import Event
from markethall.shared.guard import AllowList, Errands, Guard, guarded
from markethall.shared.idempotency import Keys
from markethall.shared.keyring import Keyring, KeySource, OwnKeys, People
from markethall.shared.limits import Limits
from markethall.shared.pages import Cursors
from markethall.shared.passwords import Passwords
from markethall.shared.redis import RedisClient
from markethall.shared.service_tokens import ServiceSigner, ServiceVerifier
from markethall.shared.tokens import Signer, Verifier
from markethall.shared.wire import Clients, Patience, Wire
from markethall.topology import CALLERS, Context
from markethall.users.container import UsersContainer
from markethall.users.contract import Accounts, Sessions, Users

AUDIENCE: Final = "markethall"

# who listens to what: event -> (listening context, handler)
LISTENERS: Final[Mapping[type[Event], tuple[tuple[Context, str], ...]]] = {
    PaymentCaptured: ((Context.ORDERS, "orders.note_payment_captured"),),
    PaymentFailed: ((Context.ORDERS, "orders.note_payment_failed"),),
    PaymentRefunded: ((Context.ORDERS, "orders.note_payment_refunded"),),
    OrderPaid: ((Context.ORDERS, "orders.commit_stock"),),
    OrderCancelled: ((Context.ORDERS, "orders.undo_order"),),
    OrderExpired: ((Context.ORDERS, "orders.release_stock"),),
    OrderFulfilled: ((Context.ORDERS, "orders.consume_stock"),),
}


KEYS_OF_USERS: Final = "/.well-known/jwks.json"
KEYS_OF_SERVICES: Final = "/internal/keys.json"


def _pool(pools: Pools, url: str) -> Postgres:
    return pools.of(url)


def _invalidation_database(pools: Pools, url: str) -> Postgres | None:
    """Return the database that carries the invalidations of the cache, if there is one."""
    return pools.of(url) if url else None


def _keys_of_people(elsewhere: bool, signer: Callable[[], Signer], clients: Clients) -> KeySource:
    if elsewhere:
        return Keyring(Context.USERS, KEYS_OF_USERS, clients.of(Context.USERS))
    return OwnKeys(signer().jwks)


def _people(keys: KeySource, issuer: str, audience: str, clock: Clock) -> People:
    return People(Verifier(keys.current, issuer, audience, clock), keys)


def _keys_of_callers(
    callers: Mapping[str, bool], own: Callable[[], ServiceSigner], clients: Clients
) -> Mapping[str, KeySource]:
    """Of those whose address is known; another shares our key, or is nobody."""
    return {
        caller: Keyring(caller, KEYS_OF_SERVICES, clients.of(caller))
        if named
        else OwnKeys(own().jwks)
        for caller, named in callers.items()
    }


def _wire_of_orders(target: Context, *parts: Any) -> "providers.Singleton[Wire]":
    return providers.Singleton(_wire, Context.ORDERS.value, target.value, *parts)


def _guard_of_orders(target: Context, *rules: Any) -> "providers.Factory[Guard]":
    return providers.Factory(Guard, Context.ORDERS.value, target.value, *rules)


def _wire(  # noqa: PLR0917 - a Wire, with the client of its target
    caller: str,
    target: str,
    clients: Clients,
    signer: ServiceSigner,
    clock: Clock,
    patience: Patience,
) -> Wire:
    return Wire(caller, target, clients.of(target), signer, clock, patience)


class Container(containers.DeclarativeContainer):
    """Tools first, then the contexts, then what they are to each other."""

    config = providers.Configuration(strict=True)

    clock: providers.Provider[Clock] = providers.Object(utc_now)
    pools: providers.Singleton[Pools] = providers.Singleton(Pools, config.pool)
    redis: providers.Singleton[RedisClient] = providers.Singleton(RedisClient, config.redis_url)
    # a broker of its own, as it were: a blocked read must not keep a cached one waiting
    broker: providers.Singleton[RedisClient] = providers.Singleton(
        RedisClient, config.redis_url, timeout=1.0
    )
    cache: providers.Singleton[CoherentCache] = providers.Singleton(
        open_cache,
        config.cache,
        redis,
        providers.Callable(_invalidation_database, pools, config.cache_database),
    )
    limits: providers.Singleton[Limits] = providers.Singleton(
        Limits, config.rate_limits, redis, config.secret
    )
    cursors: providers.Singleton[Cursors] = providers.Singleton(Cursors, config.secret)
    passwords: providers.Singleton[Passwords] = providers.Singleton(
        Passwords, config.users.bcrypt_cost, workers=2, queue=64
    )
    signer: providers.Singleton[Signer] = providers.Singleton(
        Signer,
        config.signing_key,
        config.issuer,
        config.audience,
        providers.Factory(timedelta, seconds=config.users.token_ttl),
        clock,
    )
    # what goes out to the neighbours that are elsewhere, and what comes in from them
    transport: providers.Provider[Any] = providers.Object(None)
    clients: providers.Singleton[Clients] = providers.Singleton(
        Clients, config.remotes, config.patience, transport
    )
    service_signer: providers.Singleton[ServiceSigner] = providers.Singleton(
        ServiceSigner, config.service_key, clock
    )
    services: providers.Singleton[ServiceVerifier] = providers.Singleton(
        ServiceVerifier,
        providers.Callable(_keys_of_callers, config.callers, service_signer.provider, clients),
        config.serve,
        clock,
    )
    people: providers.Singleton[People] = providers.Singleton(
        _people,
        providers.Callable(_keys_of_people, config.users_elsewhere, signer.provider, clients),
        config.issuer,
        config.audience,
        clock,
    )
    errands: providers.Singleton[Errands] = providers.Singleton(Errands)
    allowed: providers.Singleton[AllowList] = providers.Singleton(AllowList, CALLERS)

    _means: Final = (clients, service_signer, clock, config.patience)

    users_context = providers.Container(
        UsersContainer,
        config=config.users,
        postgres=providers.Callable(_pool, pools, config.users.database_url),
        clock=clock,
        cursors=cursors,
        passwords=passwords,
        signer=signer,
        remote_wire=_wire_of_orders(Context.USERS, *_means),
    )
    users: providers.Provider[Users] = users_context.users
    accounts: providers.Provider[Accounts] = users_context.accounts
    sessions: providers.Provider[Sessions] = users_context.sessions
    users_keys: providers.Provider[Keys] = users_context.keys

    inventory_context = providers.Container(
        InventoryContainer,
        config=config.inventory,
        postgres=providers.Callable(_pool, pools, config.inventory.database_url),
        clock=clock,
        cursors=cursors,
        cache=cache,
        remote_wire=_wire_of_orders(Context.INVENTORY, *_means),
    )
    inventory: providers.Provider[Inventory] = inventory_context.inventory
    catalogue: providers.Provider[Catalogue] = inventory_context.catalogue
    categories: providers.Provider[Categories] = inventory_context.categories
    stockroom: providers.Provider[Stockroom] = inventory_context.stockroom
    imports: providers.Provider[Imports] = inventory_context.imports
    warehouses: providers.Provider[Warehouses] = inventory_context.warehouses
    inventory_keys: providers.Provider[Keys] = inventory_context.keys

    payments_context = providers.Container(
        PaymentsContainer,
        config=config.payments,
        postgres=providers.Callable(_pool, pools, config.payments.database_url),
        clock=clock,
        cursors=cursors,
        webhook_secret=config.secret,
        remote_wire=_wire_of_orders(Context.PAYMENTS, *_means),
    )
    payments: providers.Provider[Payments] = payments_context.payments
    payment_desk: providers.Provider[PaymentDesk] = payments_context.payment_desk
    payments_keys: providers.Provider[Keys] = payments_context.keys

    # a neighbour is called through the guard: the laws of the split hold in process too
    _rules: Final = (allowed, errands, clock, config.deadline)
    orders_context = providers.Container(
        OrdersContainer,
        config=config.orders,
        postgres=providers.Callable(_pool, pools, config.orders.database_url),
        clock=clock,
        cursors=cursors,
        users=providers.Callable(guarded, users, _guard_of_orders(Context.USERS, *_rules)),
        inventory=providers.Callable(
            guarded, inventory, _guard_of_orders(Context.INVENTORY, *_rules)
        ),
        payments=providers.Callable(guarded, payments, _guard_of_orders(Context.PAYMENTS, *_rules)),
    )
    orders: providers.Provider[Orders] = orders_context.orders
    orders_keys: providers.Provider[Keys] = orders_context.keys


def _cache_database(settings: Settings) -> str:
    """Return the URL of the database whose rows are cached; empty for storage in memory."""
    is_shared = Context.INVENTORY in settings.serve and settings.storage == "sql"
    return settings.database_of(Context.INVENTORY) if is_shared else ""


def build_container(settings: Settings, keys: Secrets) -> Container:
    """The wiring that these settings ask for. Nothing is opened yet."""
    container = Container()
    container.config.from_dict(
        {
            "pool": PoolSize(
                least=settings.database_pool_min,
                most=settings.database_pool_max,
                timeout=settings.database_timeout,
            ),
            "redis_url": settings.redis_url.get_secret_value() or None,
            "cache": settings.cache,
            "cache_database": _cache_database(settings),
            "rate_limits": settings.rate_limits,
            "secret": keys.secret,
            "signing_key": keys.signing_key,
            "service_key": keys.service_key,
            "issuer": settings.issuer,
            "audience": AUDIENCE,
            "serve": frozenset(settings.serve),
            "remotes": dict(settings.remotes),
            "callers": _callers(settings),
            "users_elsewhere": Context.USERS in settings.remotes,
            "deadline": settings.deadline,
            "patience": Patience(
                attempt=settings.remote_timeout,
                total=settings.deadline,
                connections=settings.remote_connections,
            ),
            **{context.value: _config_of(context, settings) for context in Context},
        }
    )
    return container


def _callers(settings: Settings) -> dict[str, bool]:
    """Who calls from another process, and whether we know its address."""
    callers = {caller for context in settings.serve for caller in settings.callers_of(context)}
    return {caller.value: caller in settings.remotes for caller in sorted(callers)}


def _config_of(context: Context, settings: Settings) -> dict[str, Any]:
    """Every context gets the same dictionary, and reads of it what its container names."""
    return {
        "where": settings.mode(context),
        "storage": settings.storage,
        "database_url": settings.database_of(context),
        "bcrypt_cost": settings.bcrypt_cost,
        "issuer": settings.issuer,
        "audience": AUDIENCE,
        "token_ttl": settings.token_ttl,
        "idempotency_lease": settings.idempotency_lease,
        "hold_ttl": settings.hold_ttl,
        "open_holds": settings.open_holds,
        "held_units": settings.held_units,
        "gateway_timeout": settings.gateway_timeout,
        "reconcile_after": settings.reconcile_after,
    }
