"""The root container: the one place that knows every context, and who listens to what."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from dependency_injector import containers, providers

from markethall.inventory.container import InventoryContainer
from markethall.inventory.contract import Catalogue, Inventory
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
from markethall.settings import BadSettings, Settings
from markethall.shared.backend import Backend, Housekeeping
from markethall.shared.cache import Cache, open_cache
from markethall.shared.clock import Clock, utc_now
from markethall.shared.db import Pools, PoolSize, Postgres
from markethall.shared.events import DirectPipe, Event
from markethall.shared.guard import guarded
from markethall.shared.idempotency import Keys
from markethall.shared.limits import Limits
from markethall.shared.pages import Cursors
from markethall.shared.passwords import Passwords
from markethall.shared.redis import RedisClient
from markethall.shared.steward import Pace, Processor, Relay, Steward
from markethall.shared.tokens import Signer, Verifier
from markethall.topology import NEEDS, Context
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


def _pool(pools: Pools, url: str) -> Postgres:
    return pools.of(url)


class Container(containers.DeclarativeContainer):
    """Tools first, then the contexts, then what they are to each other."""

    config = providers.Configuration(strict=True)

    clock: providers.Provider[Clock] = providers.Object(utc_now)
    pools: providers.Singleton[Pools] = providers.Singleton(Pools, config.pool)
    redis: providers.Singleton[RedisClient] = providers.Singleton(RedisClient, config.redis_url)
    cache: providers.Singleton[Cache] = providers.Singleton(open_cache, config.cache, redis)
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
    verifier: providers.Singleton[Verifier] = providers.Singleton(
        Verifier, signer.provided.jwks, config.issuer, config.audience, clock
    )

    users_context = providers.Container(
        UsersContainer,
        config=config.users,
        postgres=providers.Callable(_pool, pools, config.users.database_url),
        clock=clock,
        cursors=cursors,
        passwords=passwords,
        signer=signer,
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
    )
    inventory: providers.Provider[Inventory] = inventory_context.inventory
    catalogue: providers.Provider[Catalogue] = inventory_context.catalogue
    inventory_keys: providers.Provider[Keys] = inventory_context.keys

    payments_context = providers.Container(
        PaymentsContainer,
        config=config.payments,
        postgres=providers.Callable(_pool, pools, config.payments.database_url),
        clock=clock,
        cursors=cursors,
        webhook_secret=config.secret,
    )
    payments: providers.Provider[Payments] = payments_context.payments
    payment_desk: providers.Provider[PaymentDesk] = payments_context.payment_desk
    payments_keys: providers.Provider[Keys] = payments_context.keys

    # a neighbour is called through the guard: the laws of the split hold in process too
    orders_context = providers.Container(
        OrdersContainer,
        config=config.orders,
        postgres=providers.Callable(_pool, pools, config.orders.database_url),
        clock=clock,
        cursors=cursors,
        users=providers.Callable(guarded, users),
        inventory=providers.Callable(guarded, inventory),
        payments=providers.Callable(guarded, payments),
    )
    orders: providers.Provider[Orders] = orders_context.orders
    orders_keys: providers.Provider[Keys] = orders_context.keys


def build_container(settings: Settings, keys: Secrets) -> Container:
    """The wiring that these settings ask for. Nothing is opened yet.

    Raises BadSettings for a neighbour that is remote: the wire is not built yet.
    """
    _refuse_remotes(settings)
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
            "rate_limits": settings.rate_limits,
            "secret": keys.secret,
            "signing_key": keys.signing_key,
            "issuer": settings.issuer,
            "audience": AUDIENCE,
            **{context.value: _config_of(context, settings) for context in Context},
        }
    )
    return container


def _refuse_remotes(settings: Settings) -> None:
    wrong = [
        f"MARKETHALL_REMOTES: {context} needs {needed} in the same process in this release"
        for context in sorted(settings.serve)
        for needed in sorted(NEEDS[context] - settings.serve)
    ]
    if wrong:
        raise BadSettings(wrong)


def _config_of(context: Context, settings: Settings) -> dict[str, Any]:
    """Every context gets the same dictionary, and reads of it what its container names."""
    return {
        "storage": settings.storage,
        "database_url": settings.database_of(context),
        "bcrypt_cost": settings.bcrypt_cost,
        "issuer": settings.issuer,
        "audience": AUDIENCE,
        "token_ttl": settings.token_ttl,
        "idempotency_lease": settings.idempotency_lease,
        "hold_ttl": settings.hold_ttl,
        "gateway_timeout": settings.gateway_timeout,
        "reconcile_after": settings.reconcile_after,
    }


def stewards(container: Container, settings: Settings) -> list[Steward]:
    """The background work of the served contexts, wired to each other by LISTENERS."""
    parts = {context: _part(container, context) for context in sorted(settings.serve)}
    pipes = {context: _pipe(part.backend(), context) for context, part in parts.items()}
    made = {
        context: _steward(context, part, list(pipes.values()), container.clock())
        for context, part in parts.items()
    }
    for context, steward in made.items():
        pipes[context].wake = steward.wake_processor
    return list(made.values())


def _part(container: Container, context: Context) -> Any:
    return getattr(container, f"{context.value}_context")


def _pipe(backend: Backend[Any], listener: Context) -> DirectPipe:
    handlers = {
        event.type: [handler for context, handler in listeners if context == listener]
        for event, listeners in LISTENERS.items()
        if any(context == listener for context, _ in listeners)
    }
    return DirectPipe(backend.inbox, handlers)


def _steward(context: Context, part: Any, pipes: Sequence[DirectPipe], clock: Clock) -> Steward:
    backend: Backend[Any] = part.backend()
    pace = Pace()
    housekeeping = Housekeeping(backend, clock, every=timedelta(minutes=1))
    steward = Steward(
        context.value,
        backend.outbox,
        Relay(context.value, pipes, clock),
        Processor(backend.inbox, part.handlers(), clock, pace),
        [*part.sweeps(), housekeeping.sweep],
        pace,
    )
    backend.database.on_publish = steward.wake
    return steward
