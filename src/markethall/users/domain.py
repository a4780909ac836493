import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from math import ceil
from secrets import token_bytes
from typing import ClassVar, Final, NamedTuple, Self
from uuid import UUID

from markethall.shared.kernel.email_address import normalize_email
from markethall.shared.kernel.errors import TooManyRequests, ValidationFailed
from markethall.shared.kernel.lookup_key import to_lookup_key
from markethall.shared.security.passwords import weakness
from markethall.users.contract import (
    BadRefreshToken,
    ChangeProfile,
    GuestAlreadyClaimed,
    LastAdmin,
    PasswordUnacceptable,
    Role,
    UserInactive,
)

USERNAME_PATTERN: Final = r"^[A-Za-z0-9_.-]{3,50}$"
MAX_USERNAME_LENGTH: Final = 50
MAX_FULL_NAME_LENGTH: Final = 200
MAX_TAG_LENGTH: Final = 50
MAX_TAGS: Final = 20

_INVALID_USERNAME_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_PASSWORD_MESSAGES: Final = {
    "too_short": "A password has at least 8 characters.",
    "too_long": "A password has at most 256 characters.",
    "too_common": "This password is too common.",
    "personal": "The user name or the e-mail address cannot be the password.",
}


def to_email_lookup_key(name: str) -> str:
    """Return the lookup key of an e-mail address. The key of an invalid address finds no user."""
    try:
        return to_lookup_key(normalize_email(name))
    except ValueError:
        return to_lookup_key(name)


def to_login_key(login: str) -> str:
    """Return the lookup key of a user name or an e-mail address. A user name contains no @."""
    return to_email_lookup_key(login) if "@" in login else to_lookup_key(login)


def derive_username(email: str) -> str:
    """Derive a user name from an e-mail address.

    Leave room for a suffix of 7 characters, which the caller adds if the name is taken.
    """
    username = _INVALID_USERNAME_CHARACTERS.sub(".", email.partition("@")[0])[
        : MAX_USERNAME_LENGTH - 7
    ]
    return username.ljust(3, "_")


def check_password(password: str, username: str, email: str) -> None:
    """Raises PasswordUnacceptable."""
    reason = weakness(password, username, email, email.partition("@")[0])
    if reason:
        raise PasswordUnacceptable(_PASSWORD_MESSAGES[reason], reason=reason)


def parse_role(name: str) -> Role:
    """Raises ValidationFailed."""
    try:
        return Role(name)
    except ValueError:
        raise _invalid_field("/role", f"one of {', '.join(Role)}") from None


@dataclass(frozen=True)
class UserIdentity:
    """A valid user name and e-mail address. Their lookup keys must be unique among all users."""

    username: str
    email: str

    @classmethod
    def parse(cls, username: str, email: str) -> Self:
        """Raises ValidationFailed."""
        if not re.fullmatch(USERNAME_PATTERN, username):
            raise _invalid_field("/username", "3 to 50 of A-Z a-z 0-9 _ . -")
        try:
            return cls(username, normalize_email(email))
        except ValueError as error:
            raise _invalid_field("/email", str(error)) from None

    @property
    def username_key(self) -> str:
        return to_lookup_key(self.username)

    @property
    def email_key(self) -> str:
        return to_lookup_key(self.email)


@dataclass
class User:
    user_id: UUID
    identity: UserIdentity
    password_hash: str = field(repr=False)
    signup_date: datetime
    full_name: str | None = None
    tags: tuple[str, ...] = ()
    roles: tuple[Role, ...] = (Role.CUSTOMER,)
    is_active: bool = True
    email_verified: bool = False
    version: int = 1

    def __post_init__(self) -> None:
        """Raises ValidationFailed."""
        if self.full_name is not None and len(self.full_name) > MAX_FULL_NAME_LENGTH:
            raise _invalid_field("/full_name", f"at most {MAX_FULL_NAME_LENGTH} characters")
        if len(self.tags) > MAX_TAGS or any(len(tag) > MAX_TAG_LENGTH for tag in self.tags):
            raise _invalid_field(
                "/tags", f"at most {MAX_TAGS}, each at most {MAX_TAG_LENGTH} characters"
            )

    @property
    def is_active_admin(self) -> bool:
        """Tell whether the account is active and has the role admin."""
        return self.is_active and Role.ADMIN in self.roles

    def check_active(self) -> None:
        """Raises UserInactive."""
        if not self.is_active:
            raise UserInactive(user_id=str(self.user_id))

    def update_profile(self, change: ChangeProfile) -> None:
        """Update the profile fields that are set. Raises UserInactive, ValidationFailed."""
        self.check_active()
        changes = change.model_dump(include=change.model_fields_set)
        self._apply_changes(**changes)

    def update_access(self, roles: tuple[Role, ...] | None, *, is_active: bool | None) -> None:
        """Change the roles and whether the user is active. None leaves a field unchanged."""
        self._apply_changes(
            roles=self.roles if roles is None else tuple(dict.fromkeys(roles)),
            is_active=self.is_active if is_active is None else is_active,
        )

    def check_admin_remains(self, *, was_admin: bool, has_other_admins: bool) -> None:
        """Raises LastAdmin when no active admin would be left."""
        if was_admin and not self.is_active_admin and not has_other_admins:
            raise LastAdmin(user_id=str(self.user_id))

    def _apply_changes(self, **values: object) -> None:
        if all(getattr(self, name) == value for name, value in values.items()):
            return
        for name, value in values.items():
            setattr(self, name, value)
        self.version += 1
        self.__post_init__()


def _invalid_field(field_name: str, message: str) -> ValidationFailed:
    errors = [{"field": field_name, "code": "value_error", "message": message}]
    return ValidationFailed(f"{field_name}: {message}.", errors=errors)


@dataclass
class Guest:
    """A buyer without an account. A user may claim the guest, once."""

    roles: ClassVar[tuple[Role, ...]] = ()

    guest_id: UUID
    created_at: datetime
    claimed_by: UUID | None = None
    claimed_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Tell whether the guest may refresh tokens and place orders. After a claim it may not."""
        return self.claimed_by is None

    def claim(self, user_id: UUID, now: datetime) -> bool:
        """Record the claim by the user. Return False if this user has claimed the guest before.

        Raises GuestAlreadyClaimed if another user has.
        """
        if self.claimed_by == user_id:
            return False
        if self.claimed_by is not None:
            raise GuestAlreadyClaimed(guest_id=str(self.guest_id))
        self.claimed_by, self.claimed_at = user_id, now
        return True


# of a user, counted from the sign-in; an exchange of tokens does not extend it
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


# number of wrong passwords before the first delay; NIST 800-63B allows at most 100
FREE_LOGIN_FAILURES: Final = 10
FIRST_LOGIN_DELAY: Final = timedelta(seconds=30)
MAX_LOGIN_DELAY: Final = timedelta(days=1)
# a count of failures is deleted this long after the last attempt
LOGIN_FAILURES_RETENTION: Final = timedelta(days=30)
# the number of stored counts for logins that match no account; if there are more, the oldest are
# deleted
MAX_UNKNOWN_ACCOUNTS: Final = 100_000


def login_delay(failures: int) -> timedelta:
    """Return the delay before the next attempt. It doubles with each failure, up to a day."""
    if failures < FREE_LOGIN_FAILURES:
        return timedelta()
    # 16 doublings exceed the maximum delay, and many more would overflow timedelta
    doublings = min(failures - FREE_LOGIN_FAILURES, 16)
    return min(FIRST_LOGIN_DELAY * (1 << doublings), MAX_LOGIN_DELAY)


@dataclass
class LoginFailures:
    """The number of failed logins under one key since the latest success.

    The key identifies an account and a network if the user has signed in from this network before.
    Otherwise it identifies the account alone (decision 0020).
    """

    key_hash: bytes = field(repr=False)
    # None if the login matches no account
    user_id: UUID | None
    failures: int
    last_failed_at: datetime

    def begin(self, now: datetime) -> None:
        """Count an attempt as failed. Raises TooManyRequests during a delay.

        Call this before the password is verified, so that concurrent attempts are counted too.
        """
        wait = self.last_failed_at + login_delay(self.failures) - now
        if self.failures >= FREE_LOGIN_FAILURES and wait > timedelta():
            raise TooManyRequests(policy="login-account", retry_after=ceil(wait.total_seconds()))
        self.failures += 1
        self.last_failed_at = now
