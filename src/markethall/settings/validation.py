"""Rules for combinations of settings; each problem is described by one readable line."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from markethall.contexts import topology

if TYPE_CHECKING:
    from markethall.settings.process import Settings

_PREFIX: Final = "MARKETHALL_"
# variables of command line options, which are not settings
_COMMAND_VARIABLES: Final = {
    "MARKETHALL_HOST",
    "MARKETHALL_PORT",
    "MARKETHALL_ENV_FILE",
    "MARKETHALL_SECRETS_DIR",
}
# variables of the tests, and those that Kubernetes derives from the names of services
_FOREIGN_VARIABLE: Final = re.compile(
    r"MARKETHALL_(TEST_\w+|\w*_?(SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_\d+_\w+))"
)
# ratio of difflib (0 to 1): at this value, names with one or two wrong letters are still found
_MIN_SIMILARITY: Final = 0.85


def cross_field_problems(settings: "Settings") -> list[str]:
    return [
        *_topology_problems(settings),
        *_event_problems(settings),
        *_publisher_problems(settings),
        *_pool_problems(settings),
        *_pooler_problems(settings),
        *_body_problems(settings),
        *_metrics_problems(settings),
        *_production_problems(settings),
    ]


def _topology_problems(settings: "Settings") -> list[str]:
    problems = [
        f"MARKETHALL_CONTEXT_URLS: {context} is served by this process and cannot be remote too"
        for context in sorted(settings.contexts & set(settings.context_urls))
    ]
    for context in sorted(settings.contexts):
        missing = sorted(
            topology().dependencies[context] - settings.contexts - set(settings.context_urls)
        )
        if missing:
            names = ", ".join(missing)
            problems.append(f"MARKETHALL_CONTEXT_URLS: {context} needs {names}: serve or name them")
    return problems


def _event_problems(settings: "Settings") -> list[str]:
    if settings.redis_url.get_secret_value():
        return []
    problems = [
        f"MARKETHALL_REDIS_URL: is required: {publisher} or {listener} is served elsewhere"
        for publisher, listener in topology().event_pairs
        if (publisher in settings.contexts) != (listener in settings.contexts)
    ]
    if settings.event_transport == "dual" and not problems:
        problems.append("MARKETHALL_EVENT_TRANSPORT: dual needs MARKETHALL_REDIS_URL")
    return problems


def _publisher_problems(settings: "Settings") -> list[str]:
    """Require the URL of each remote publisher, from which its public keys are fetched.

    A service key in the settings is not enough: the publisher may have another key, and then all
    its events become dead letters.
    """
    missing = {
        publisher
        for context in settings.contexts
        # _topology_problems reports the publishers that the context also calls
        for publisher in settings.remote_publishers_of(context) - topology().dependencies[context]
    } - set(settings.context_urls)
    return [
        f"MARKETHALL_CONTEXT_URLS: {publisher}: is required to verify its events"
        for publisher in sorted(missing)
    ]


def _pool_problems(settings: "Settings") -> list[str]:
    if settings.database_pool_max < settings.database_pool_min:
        return ["MARKETHALL_DATABASE_POOL_MAX: is less than MARKETHALL_DATABASE_POOL_MIN"]
    return []


def _pooler_problems(settings: "Settings") -> list[str]:
    if settings.database_pooler == "none" or settings.storage == "memory":
        return []
    if all(settings.database_direct_url_of(context) for context in settings.contexts):
        return []
    return ["MARKETHALL_DATABASE_DIRECT_URL: is required with DATABASE_POOLER=transaction"]


def _body_problems(settings: "Settings") -> list[str]:
    if settings.max_body_bytes_in_flight < settings.max_body_bytes:
        return ["MARKETHALL_MAX_BODY_BYTES_IN_FLIGHT: is less than MARKETHALL_MAX_BODY_BYTES"]
    return []


def _metrics_problems(settings: "Settings") -> list[str]:
    if settings.metrics_port is not None and settings.metrics == "off":
        return ["MARKETHALL_METRICS_PORT: MARKETHALL_METRICS is off"]
    return []


def _production_problems(settings: "Settings") -> list[str]:
    if settings.environment != "production":
        return []
    problems = _secret_problems(settings)
    if settings.storage == "memory":
        problems.append("MARKETHALL_STORAGE: memory keeps nothing; it is refused in production")
    elif missing := _contexts_without_database(settings):
        problems.append(f"MARKETHALL_DATABASE_URL: is required in production for {missing}")
    if settings.rate_limits == "off":
        problems.append("MARKETHALL_RATE_LIMITS: off is refused in production")
    if settings.debug:
        problems.append("MARKETHALL_DEBUG: is refused in production")
    return problems


def _secret_problems(settings: "Settings") -> list[str]:
    problems = []
    if not settings.secret_key.get_secret_value():
        problems.append("MARKETHALL_SECRET_KEY: is required in production")
    if (
        topology().token_issuer in settings.contexts
        and not settings.access_token_private_key.get_secret_value()
    ):
        problems.append(
            "MARKETHALL_ACCESS_TOKEN_PRIVATE_KEY: is required in production where "
            f"{topology().token_issuer} is served"
        )
    if topology().token_issuer not in settings.contexts | set(settings.context_urls):
        problems.append(
            f"MARKETHALL_CONTEXT_URLS: {topology().token_issuer}: is required to read its "
            "public keys"
        )
    if (
        settings.has_remote_dependencies or settings.has_remote_subscribers
    ) and not settings.service_token_private_key.get_secret_value():
        problems.append(
            "MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY: is required in production to call "
            "another process, and to send events to one"
        )
    return problems


def _contexts_without_database(settings: "Settings") -> str:
    return ", ".join(c for c in sorted(settings.contexts) if not settings.database_url_of(c))


def lax_settings(settings: "Settings") -> dict[str, str]:
    """Return the settings that are allowed in production but probably wrong, with their effects."""
    if settings.environment != "production":
        return {}
    lax = {
        "MARKETHALL_METRICS": (
            settings.metrics == "auto"
            and settings.metrics_port is None
            and not settings.metrics_token.get_secret_value(),
            "anyone who reaches /metrics reads it",
        ),
        "MARKETHALL_DOCS": (settings.docs == "on", "anyone can read /docs and /openapi.json"),
        "MARKETHALL_ISSUER": (
            not settings.issuer.startswith("https://"),
            "the public address of tokens is not https",
        ),
        "MARKETHALL_TRUSTED_PROXIES": (
            any(network.endswith("/0") for network in settings.trusted_proxies),
            "any client can claim any address",
        ),
        "MARKETHALL_CORS_ORIGINS": (
            any(origin.startswith("http:") for origin in settings.cors_origins),
            "the network can change pages without https, and so their calls to the API",
        ),
        "MARKETHALL_LOG_LEVEL": (settings.log_level == "error", "security events are not logged"),
    }
    if unknown := _callers_without_key(settings):
        lax["MARKETHALL_CONTEXT_URLS"] = True, f"calls of {unknown} are rejected: no public key"
    found = {name: effect for name, (is_lax, effect) in lax.items() if is_lax}
    for context_settings in settings.by_context.values():
        found.update(context_settings.lax_settings)
    return found


def _callers_without_key(settings: "Settings") -> str:
    """Return the remote callers whose service tokens this process cannot verify in production."""
    if settings.service_token_private_key.get_secret_value():
        return ""
    callers = frozenset[str]().union(*map(settings.remote_callers_of, settings.contexts))
    return ", ".join(sorted(callers - set(settings.context_urls)))


def misspelled_variables(environment: Iterable[str], settings_names: Iterable[str]) -> list[str]:
    """Return a line for each variable whose name is similar to a setting, but not equal.

    Variables that Kubernetes derives from Services, and those of the tests, are ignored.
    """
    known = {f"{_PREFIX}{name.upper()}" for name in settings_names} | _COMMAND_VARIABLES
    problems = []
    for variable in sorted(environment):
        name = variable.upper()
        if not name.startswith(_PREFIX) or name in known or _FOREIGN_VARIABLE.fullmatch(name):
            continue
        if nearest := get_close_matches(name, sorted(known), n=1, cutoff=_MIN_SIMILARITY):
            problems.append(f"{variable}: is not a setting; did you mean {nearest[0]}?")
    return problems
