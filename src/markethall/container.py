"""The root container: the one place that knows every context."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from dependency_injector import containers, providers

from markethall.contexts import context_names, topology
from markethall.inventory.catalogue.contract.categories import Categories
from markethall.inventory.catalogue.contract.products import Catalogue
from markethall.inventory.container import InventoryContainer
from markethall.inventory.contract import Inventory
from markethall.inventory.imports.contract import Imports
from markethall.inventory.reservations.contract import Reservations
from markethall.inventory.search.contract import ProductSearch
from markethall.inventory.stock.contract import Stockroom, Warehouses
from markethall.orders.container import OrdersContainer
from markethall.orders.contract import Orders
from markethall.payments.container import PaymentsContainer
from markethall.payments.contract import PaymentApi, Payments
from markethall.secret_keys import ApplicationSecrets
from markethall.settings import Settings
from markethall.shared.cache import CoherentCache, open_cache
from markethall.shared.http.rate_limits import RateLimiter
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.clock import Clock, utc_now
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.persistence.postgres import Databases, PoolSize, Postgres
from markethall.shared.persistence.redis_client import RedisClient
from markethall.shared.rpc.client import HttpClients, RetryPolicy, RpcClient
from markethall.shared.rpc.client_interceptor import (
    AllowList,
    CallGuard,
    InFlightCalls,
    with_call_guard,
)
from markethall.shared.security.access_tokens import AccessTokenSigner, AccessTokenVerifier
from markethall.shared.security.jwks import JwksProvider, LocalJwks, RemoteJwks, UserTokenVerifier
from markethall.shared.security.passwords import Passwords
from markethall.shared.security.service_tokens import ServiceSigner, ServiceVerifier
from markethall.users.container import UsersContainer
from markethall.users.contract import Accounts, Sessions, Users

AUDIENCE: Final = "markethall"

USERS_JWKS_PATH: Final = "/.well-known/jwks.json"
SERVICES_JWKS_PATH: Final = "/internal/keys.json"


def _get_database(databases: Databases, url: str) -> Postgres:
    return databases.get(url)


def _user_jwks(
    is_remote: bool, signer: Callable[[], AccessTokenSigner], http_clients: HttpClients
) -> JwksProvider:
    if is_remote:
        return RemoteJwks("users", USERS_JWKS_PATH, http_clients.get("users"))
    return LocalJwks(signer().jwks)


def _token_verifier(
    jwks: JwksProvider, issuer: str, audience: str, clock: Clock
) -> UserTokenVerifier:
    return UserTokenVerifier(AccessTokenVerifier(jwks.get_key_set, issuer, audience, clock), jwks)


def _caller_jwks(
    has_url_by_caller: Mapping[str, bool],
    service_signer: Callable[[], ServiceSigner],
    http_clients: HttpClients,
) -> Mapping[str, JwksProvider]:
    """Of those whose address is known; another shares our key, or is nobody."""
    return {
        caller: RemoteJwks(caller, SERVICES_JWKS_PATH, http_clients.get(caller))
        if named
        else LocalJwks(service_signer().jwks)
        for caller, named in has_url_by_caller.items()
    }


def _orders_rpc_client(target: str, *dependencies: Any) -> "providers.Singleton[RpcClient]":
    return providers.Singleton(_rpc_client, "orders", target, *dependencies)


def _orders_call_guard(target: str, *dependencies: Any) -> "providers.Factory[CallGuard]":
    return providers.Factory(CallGuard, "orders", target, *dependencies)


def _rpc_client(
    caller: str,
    target: str,
    http_clients: HttpClients,
    signer: ServiceSigner,
    clock: Clock,
    retry_policy: RetryPolicy,
) -> RpcClient:
    return RpcClient(caller, target, http_clients.get(target), signer, clock, retry_policy)


class Container(containers.DeclarativeContainer):
    """Tools first, then the contexts, then what they are to each other."""

    config = providers.Configuration(strict=True)

    clock: providers.Provider[Clock] = providers.Object(utc_now)
    databases: providers.Singleton[Databases] = providers.Singleton(Databases, config.database_pool)
    redis: providers.Singleton[RedisClient] = providers.Singleton(RedisClient, config.redis_url)
    # a broker of its own, as it were: a blocked read must not keep a cached one waiting
    broker: providers.Singleton[RedisClient] = providers.Singleton(
        RedisClient, config.redis_url, timeout=1.0
    )
    cache: providers.Singleton[CoherentCache] = providers.Singleton(open_cache, config.cache, redis)
    rate_limiter: providers.Singleton[RateLimiter] = providers.Singleton(
        RateLimiter, config.rate_limits, redis, config.secret_key
    )
    cursors: providers.Singleton[Cursors] = providers.Singleton(Cursors, config.secret_key)
    passwords: providers.Singleton[Passwords] = providers.Singleton(
        Passwords, config.users.bcrypt_cost, workers=2, queue=64
    )
    access_token_signer: providers.Singleton[AccessTokenSigner] = providers.Singleton(
        AccessTokenSigner,
        config.access_token_private_key,
        config.issuer,
        config.audience,
        providers.Factory(timedelta, seconds=config.users.token_ttl),
        clock,
    )
    # what goes out to the neighbours that are elsewhere, and what comes in from them
    transport: providers.Provider[Any] = providers.Object(None)
    http_clients: providers.Singleton[HttpClients] = providers.Singleton(
        HttpClients, config.context_urls, config.retry_policy, transport
    )
    service_signer: providers.Singleton[ServiceSigner] = providers.Singleton(
        ServiceSigner, config.service_token_private_key, clock
    )
    service_token_verifier: providers.Singleton[ServiceVerifier] = providers.Singleton(
        ServiceVerifier,
        providers.Callable(
            _caller_jwks, config.remote_callers, service_signer.provider, http_clients
        ),
        config.contexts,
        clock,
    )
    user_token_verifier: providers.Singleton[UserTokenVerifier] = providers.Singleton(
        _token_verifier,
        providers.Callable(
            _user_jwks, config.users_is_remote, access_token_signer.provider, http_clients
        ),
        config.issuer,
        config.audience,
        clock,
    )
    in_flight_calls: providers.Singleton[InFlightCalls] = providers.Singleton(InFlightCalls)
    allow_list: providers.Singleton[AllowList] = providers.Singleton(
        AllowList, providers.Callable(lambda: topology().allowed_calls)
    )

    _rpc_dependencies: Final = (http_clients, service_signer, clock, config.retry_policy)

    users_context = providers.Container(
        UsersContainer,
        config=config.users,
        postgres=providers.Callable(_get_database, databases, config.users.database_url),
        clock=clock,
        cursors=cursors,
        passwords=passwords,
        signer=access_token_signer,
        rpc_client=_orders_rpc_client("users", *_rpc_dependencies),
    )
    users: providers.Provider[Users] = users_context.users
    accounts: providers.Provider[Accounts] = users_context.accounts
    sessions: providers.Provider[Sessions] = users_context.sessions
    users_idempotency: providers.Provider[IdempotencyService] = users_context.idempotency

    inventory_context = providers.Container(
        InventoryContainer,
        config=config.inventory,
        postgres=providers.Callable(_get_database, databases, config.inventory.database_url),
        clock=clock,
        cursors=cursors,
        cache=cache,
        rpc_client=_orders_rpc_client("inventory", *_rpc_dependencies),
    )
    inventory: providers.Provider[Inventory] = inventory_context.inventory
    catalogue: providers.Provider[Catalogue] = inventory_context.catalogue
    product_search: providers.Provider[ProductSearch] = inventory_context.product_search
    categories: providers.Provider[Categories] = inventory_context.categories
    stockroom: providers.Provider[Stockroom] = inventory_context.stockroom
    reservations: providers.Provider[Reservations] = inventory_context.reservations
    imports: providers.Provider[Imports] = inventory_context.imports
    warehouses: providers.Provider[Warehouses] = inventory_context.warehouses
    inventory_idempotency: providers.Provider[IdempotencyService] = inventory_context.idempotency

    payments_context = providers.Container(
        PaymentsContainer,
        config=config.payments,
        postgres=providers.Callable(_get_database, databases, config.payments.database_url),
        clock=clock,
        cursors=cursors,
        webhook_secret=config.secret_key,
        rpc_client=_orders_rpc_client("payments", *_rpc_dependencies),
    )
    payments: providers.Provider[Payments] = payments_context.payments
    payment_api: providers.Provider[PaymentApi] = payments_context.payment_api
    payments_idempotency: providers.Provider[IdempotencyService] = payments_context.idempotency

    # a neighbour is called through the guard: the laws of the split hold in process too
    _guard_dependencies: Final = (
        allow_list,
        in_flight_calls,
        clock,
        config.request_deadline_seconds,
    )
    orders_context = providers.Container(
        OrdersContainer,
        config=config.orders,
        postgres=providers.Callable(_get_database, databases, config.orders.database_url),
        clock=clock,
        cursors=cursors,
        users=providers.Callable(
            with_call_guard, users, _orders_call_guard("users", *_guard_dependencies)
        ),
        inventory=providers.Callable(
            with_call_guard, inventory, _orders_call_guard("inventory", *_guard_dependencies)
        ),
        payments=providers.Callable(
            with_call_guard, payments, _orders_call_guard("payments", *_guard_dependencies)
        ),
    )
    orders: providers.Provider[Orders] = orders_context.orders
    orders_idempotency: providers.Provider[IdempotencyService] = orders_context.idempotency


def build_container(settings: Settings, application_secrets: ApplicationSecrets) -> Container:
    """The wiring that these settings ask for. Nothing is opened yet."""
    container = Container()
    container.config.from_dict(
        {
            "database_pool": PoolSize(
                min_size=settings.database_pool_min,
                max_size=settings.database_pool_max,
                timeout=settings.database_timeout,
            ),
            "redis_url": settings.redis_url.get_secret_value() or None,
            "cache": settings.cache,
            "rate_limits": settings.rate_limits,
            "secret_key": application_secrets.secret_key,
            "access_token_private_key": application_secrets.access_token_private_key,
            "service_token_private_key": application_secrets.service_token_private_key,
            "issuer": settings.issuer,
            "audience": AUDIENCE,
            "contexts": frozenset(settings.contexts),
            "context_urls": dict(settings.context_urls),
            "remote_callers": _remote_callers(settings),
            "users_is_remote": "users" in settings.context_urls,
            "request_deadline_seconds": settings.request_deadline_seconds,
            "retry_policy": RetryPolicy(
                attempt_timeout_seconds=settings.rpc_attempt_timeout_seconds,
                total_timeout_seconds=settings.request_deadline_seconds,
                max_connections=settings.rpc_max_connections,
            ),
            **{context: _context_config(context, settings) for context in context_names()},
        }
    )
    return container


def _remote_callers(settings: Settings) -> dict[str, bool]:
    """Who calls from another process, and whether we know its address."""
    callers = {
        caller for context in settings.contexts for caller in settings.remote_callers_of(context)
    }
    return {caller: caller in settings.context_urls for caller in sorted(callers)}


def _context_config(context: str, settings: Settings) -> dict[str, Any]:
    """Every context gets the same dictionary, and reads of it what its container names."""
    return {
        "mode": settings.mode(context),
        "storage": settings.storage,
        "database_url": settings.database_url_of(context),
        "bcrypt_cost": settings.bcrypt_cost,
        "issuer": settings.issuer,
        "audience": AUDIENCE,
        "token_ttl": settings.token_ttl,
        "idempotency_lease": settings.idempotency_lease,
        "reservation_ttl_seconds": settings.reservation_ttl_seconds,
        "max_unpaid_orders_per_customer": settings.max_unpaid_orders_per_customer,
        "max_reserved_units_per_customer": settings.max_reserved_units_per_customer,
        "payment_provider_timeout_seconds": settings.payment_provider_timeout_seconds,
        "payment_reconcile_after_seconds": settings.payment_reconcile_after_seconds,
    }
