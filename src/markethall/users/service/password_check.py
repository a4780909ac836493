"""Verify passwords, with growing delays after wrong passwords."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.client_network import client_network
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Overloaded, TooManyRequests
from markethall.shared.kernel.key_derivation import KeyPurpose
from markethall.shared.persistence.database import Database
from markethall.shared.security.passwords import Passwords
from markethall.users.contract.errors import BadCredentials
from markethall.users.domain.user import User
from markethall.users.ports import ReadStore, Store, TokenSigner

log = structlog.get_logger("markethall.security")

_NO_USER: Final = UUID(int=0)


@dataclass(frozen=True)
class PasswordAttempt:
    """One check of a password. It counts as failed until `PasswordCheck.succeed` is called.

    `key_hash` is the key under which the failures are counted.
    """

    key_hash: bytes
    network_hash: bytes | None


class PasswordCheck:
    """Verify passwords, and reject attempts during a delay (decision 0020)."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        passwords: Passwords,
        signer: TokenSigner,
        clock: Clock,
        *,
        is_limited: bool,
    ) -> None:
        """If `is_limited` is false, as in benchmarks, allow any number of guesses."""
        self._database = database
        self._passwords = passwords
        self._signer = signer
        self._clock = clock
        self._is_limited = is_limited

    async def hash(self, password: str) -> str:
        """Return the hash to store. Raises Overloaded."""
        return await self._passwords.hash(password)

    async def verify(
        self, ctx: CallContext, login_key: str, user: User | None, password: str
    ) -> PasswordAttempt:
        """Compare the password with the user's hash. If `user` is None, every password is wrong.

        Raises BadCredentials, TooManyRequests, Overloaded.
        """
        try:
            attempt = await self._begin(ctx, login_key, user)
        except TooManyRequests:
            log_failed_login(ctx, user, "delayed")
            raise
        try:
            # the password is hashed even if there is no user, so that the response time does not
            # reveal which accounts exist
            is_match = await self._passwords.verify(password, user.password_hash if user else None)
        except Overloaded:
            await self._undo(attempt)
            raise
        if not is_match:
            log_failed_login(ctx, user, "wrong" if user else "unknown")
            raise BadCredentials
        return attempt

    async def succeed(self, store: Store, attempt: PasswordAttempt) -> None:
        """Clear the failures, in the transaction of the change that the password allows."""
        await store.clear_login_failures(attempt.key_hash)

    async def _begin(self, ctx: CallContext, login_key: str, user: User | None) -> PasswordAttempt:
        account = f"user {user.user_id}" if user else f"unknown {login_key}"
        network_hash = self._hash_network(ctx, account)
        if network_hash and await self._is_known(user, network_hash):
            attempt = PasswordAttempt(network_hash, network_hash)
        else:
            attempt = PasswordAttempt(self._digest(account), network_hash)
        if self._is_limited:
            await self._count(attempt, user)
        return attempt

    async def _count(self, attempt: PasswordAttempt, user: User | None) -> None:
        now = self._clock()
        async with self._database.transaction() as store:
            failures = await store.get_login_failures_for_update(
                attempt.key_hash, user.user_id if user else None, now
            )
            failures.begin(now)
            await store.save_login_failures(failures)

    async def _undo(self, attempt: PasswordAttempt) -> None:
        async with self._database.transaction() as store:
            await store.undo_login_failure(attempt.key_hash)

    async def _is_known(self, user: User | None, network_hash: bytes) -> bool:
        user_id = user.user_id if user else _NO_USER
        async with self._database.read_session() as store:
            return await store.has_signed_in_from(user_id, network_hash)

    def _hash_network(self, ctx: CallContext, account: str) -> bytes | None:
        if not ctx.client_ip:
            return None
        return self._digest(f"{account} in {client_network(ctx.client_ip)}")

    def _digest(self, text: str) -> bytes:
        """Hash with a key, because a plain hash of a network or a user name is easy to guess."""
        return self._signer.digest(KeyPurpose.LOGIN_FAILURE, text)


def log_failed_login(ctx: CallContext, user: User | None, reason: str) -> None:
    """Log a failed login without the typed user name, because it may be the password."""
    subject = f"user:{user.user_id}" if user else None
    log.warning("security.login_failed", **ctx.security_fields, subject=subject, reason=reason)
