"""The rules of sessions and of their refresh tokens."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from secrets import token_bytes
from typing import Final, NamedTuple, Self
from uuid import UUID

from markethall.users.contract.errors import BadRefreshToken

# the lifetime of a user's session from the sign-in; an exchange of tokens does not extend it
SESSION_LIFETIME: Final = timedelta(days=30)
# an exchanged token remains valid for this time, because the client may not have received the
# response
REFRESH_GRACE_PERIOD: Final = timedelta(seconds=10)
# the number of exchanged tokens that a session stores; if there are more, the oldest lose their
# grace period early
MAX_EXCHANGED_TOKENS: Final = 16

# A function that computes a keyed digest of 256 bits. The digest is the secret part of the next
# refresh token, so that this token cannot be computed without the key.
Digest = Callable[[str], bytes]

_FAMILY_BYTES: Final = 16
_SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class RefreshToken:
    """An opaque token of two parts: 128 random bits for the family, 256 bits for the secret.

    All tokens of a session have the same family, so a reused token still identifies the session.
    Only hashes of the family and of the whole token are stored.
    """

    family: bytes = field(repr=False)
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        return cls(token_bytes(_FAMILY_BYTES), token_bytes(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadRefreshToken."""
        try:
            raw = urlsafe_b64decode(text.encode("ascii"))
        except ValueError:
            raise BadRefreshToken from None
        token = cls(raw[:_FAMILY_BYTES], raw[_FAMILY_BYTES:])
        if token.encoded != text or len(token.secret) != _SECRET_BYTES:
            raise BadRefreshToken
        return token

    def of_generation(self, generation: int, digest: Digest) -> Self:
        """Compute the token of this family after `generation` exchanges (at least 1).

        The token depends only on the family, `generation` and the key of `digest`. So browser tabs
        that exchange a token at the same time get the same new token, and no session ends.
        """
        return type(self)(self.family, digest(f"{self.family.hex()} {generation}"))

    @property
    def encoded(self) -> str:
        return urlsafe_b64encode(self.family + self.secret).decode()

    @property
    def family_hash(self) -> bytes:
        return hashlib.sha256(self.family).digest()

    @property
    def token_hash(self) -> bytes:
        return hashlib.sha256(self.family + self.secret).digest()


class RotationResult(Enum):
    """The result of exchanging a refresh token.

    REUSED: the token may be stolen, so the session ends. REJECTED: the session has ended already,
    or the signing key was replaced.
    """

    ROTATED = auto()
    REJECTED = auto()
    REUSED = auto()


class ExchangedToken(NamedTuple):
    token_hash: bytes
    exchanged_at: datetime


@dataclass
class Session:
    """A sign-in and all its refresh tokens, which are a token family in RFC 9700.

    The owner is a user or a guest: one of `user_id` and `guest_id` is None.
    """

    session_id: UUID
    user_id: UUID | None
    family_hash: bytes = field(repr=False)
    token_hash: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime
    # the number of token exchanges so far
    generation: int = 0
    # the exchanged tokens, oldest first; each is still accepted during its grace period
    exchanged: tuple[ExchangedToken, ...] = field(default=(), repr=False)
    revoked_at: datetime | None = None
    # keyed digest of the user and the client's network, to recognize later logins from this network
    network_hash: bytes | None = field(default=None, repr=False)
    guest_id: UUID | None = None

    @classmethod
    def open(
        cls,
        session_id: UUID,
        user_id: UUID,
        token: RefreshToken,
        now: datetime,
        network_hash: bytes | None = None,
    ) -> Self:
        return cls(
            session_id,
            user_id,
            token.family_hash,
            token.token_hash,
            created_at=now,
            expires_at=now + SESSION_LIFETIME,
            network_hash=network_hash,
        )

    @classmethod
    def open_for_guest(
        cls,
        session_id: UUID,
        guest_id: UUID,
        token: RefreshToken,
        now: datetime,
        lifetime: timedelta,
    ) -> Self:
        """Open the only session of a guest, who cannot sign in again.

        Each exchange of its tokens extends it, see `extend`.
        """
        return cls(
            session_id,
            None,
            token.family_hash,
            token.token_hash,
            created_at=now,
            expires_at=now + lifetime,
            guest_id=guest_id,
        )

    def extend(self, now: datetime, lifetime: timedelta) -> None:
        self.expires_at = now + lifetime

    def is_open(self, now: datetime) -> bool:
        return self.revoked_at is None and self.expires_at > now

    def accepts(self, presented: RefreshToken, now: datetime) -> bool:
        """Tell whether the token can be exchanged now."""
        if not self.is_open(now):
            return False
        return presented.token_hash == self.token_hash or self._is_in_grace_period(presented, now)

    def rotate(self, presented: RefreshToken, digest: Digest, now: datetime) -> RotationResult:
        """Exchange the presented token. After ROTATED, `current_token` returns the new token.

        A token that is neither the current one nor in its grace period ends the session, because it
        may be stolen.
        """
        if not self.is_open(now):
            return RotationResult.REJECTED
        if presented.token_hash == self.token_hash:
            self._advance(presented, digest, now)
            return RotationResult.ROTATED
        if not self._is_in_grace_period(presented, now):
            self.revoked_at = now
            return RotationResult.REUSED
        # if the signing key was replaced after the latest exchange, the computed token does not
        # match the stored hash, and the user must sign in again
        is_same_key = self.current_token(presented, digest).token_hash == self.token_hash
        return RotationResult.ROTATED if is_same_key else RotationResult.REJECTED

    def current_token(self, presented: RefreshToken, digest: Digest) -> RefreshToken:
        """Compute the token that the latest exchange issued.

        The session stores only the hash of the family, so the family is read from `presented`.
        """
        return presented.of_generation(self.generation, digest)

    def _advance(self, presented: RefreshToken, digest: Digest, now: datetime) -> None:
        recent = [
            each for each in self.exchanged if now - each.exchanged_at <= REFRESH_GRACE_PERIOD
        ]
        exchanged = [*recent, ExchangedToken(self.token_hash, now)]
        self.exchanged = tuple(exchanged[-MAX_EXCHANGED_TOKENS:])
        self.generation += 1
        self.token_hash = self.current_token(presented, digest).token_hash

    def _is_in_grace_period(self, presented: RefreshToken, now: datetime) -> bool:
        """Tell whether the token was exchanged at most one grace period ago.

        The period begins at the first exchange of the token. Further exchanges do not extend it.
        """
        return any(
            presented.token_hash == each.token_hash
            and now - each.exchanged_at <= REFRESH_GRACE_PERIOD
            for each in self.exchanged
        )
