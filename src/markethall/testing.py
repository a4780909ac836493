"""Tools to test a context: its container without an application, on memory or on Postgres."""

from typing import Literal

from markethall.shared.composition.container import ContextTools
from markethall.shared.kernel.clock import Clock, utc_now
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.persistence.redis_client import RedisClient
from markethall.shared.security.access_tokens import AccessTokenSigner


def context_tools(
    *,
    clock: Clock = utc_now,
    postgres: Postgres | None = None,
    secret_key: bytes = b"a secret of the tests, which protects nothing",
    cache_mode: Literal["on", "off"] = "off",
    signer: AccessTokenSigner | None = None,
) -> ContextTools:
    """Return the tools that a process gives to a context; without Redis."""

    def access_token_signer() -> AccessTokenSigner:
        if signer is None:
            raise LookupError("this test gave no signer of access tokens")
        return signer

    return ContextTools(
        postgres=postgres,
        redis=RedisClient(None),
        clock=clock,
        cursors=Cursors(secret_key),
        secret_key=secret_key,
        cache_mode=cache_mode,
        access_token_signer=access_token_signer,
    )
