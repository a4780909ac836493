"""The rules about people and their sessions."""

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from secrets import token_bytes
from typing import Final, Self
from unicodedata import normalize
from uuid import UUID

from email_validator import EmailNotValidError, validate_email

from markethall.shared.errors import Invalid
from markethall.shared.passwords import weakness
from markethall.users.contract import (
    BadRefreshToken,
    ChangeProfile,
    LastAdmin,
    PasswordUnacceptable,
    Role,
    UserInactive,
)

USERNAME: Final = r"^[A-Za-z0-9_.-]{3,50}$"
LONGEST_USERNAME: Final = 50
LONGEST_EMAIL: Final = 254
LONGEST_NAME: Final = 200
LONGEST_TAG: Final = 50
MOST_TAGS: Final = 20

# counted from the sign-in, however often the token is traded: then the password is asked again
SESSION_LIFETIME: Final = timedelta(days=30)
# how long the last token is still good, for a client that never got the answer
GRACE: Final = timedelta(seconds=10)

_NOT_IN_USERNAMES: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_WHY: Final = {
    "too_short": "A password has at least 8 characters.",
    "too_long": "A password has at most 256 characters.",
    "too_common": "This password is one of the first that anybody would try.",
    "personal": "The user name or the e-mail address cannot be the password.",
}


def key_of(text: str) -> str:
    """The same for all ways to write the same name (Unicode TR 15, and case folding)."""
    return normalize("NFKC", normalize("NFKC", text).casefold())


def email_address(text: str) -> str:
    """In its one written form. Raises ValueError with words for people."""
    try:
        # test_environment: example.test is as good an address as any other (RFC 2606)
        found = validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise ValueError(str(error).rstrip(".")) from None
    return found.normalized


def login_key(name: str) -> str:
    """What an e-mail address is looked up by, also one that is none."""
    try:
        return key_of(email_address(name))
    except ValueError:
        return key_of(name)


def username_from(email: str) -> str:
    """A name to begin with, for who was given none."""
    name = _NOT_IN_USERNAMES.sub(".", email.partition("@")[0])[: LONGEST_USERNAME - 7]
    return name.ljust(3, "_")


def check_password(password: str, username: str, email: str) -> None:
    """Raises PasswordUnacceptable."""
    reason = weakness(password, username, email, email.partition("@")[0])
    if reason:
        raise PasswordUnacceptable(_WHY[reason], reason=reason)


def known_role(name: str) -> Role:
    """Raises Invalid."""
    try:
        return Role(name)
    except ValueError:
        raise _invalid("/role", f"one of {', '.join(Role)}") from None


@dataclass(frozen=True)
class Names:
    """What a person is known by, checked, and the keys that make it theirs alone."""

    username: str
    email: str

    @classmethod
    def checked(cls, username: str, email: str) -> Self:
        """Raises Invalid."""
        if not re.fullmatch(USERNAME, username):
            raise _invalid("/username", "3 to 50 of A-Z a-z 0-9 _ . -")
        try:
            return cls(username, email_address(email))
        except ValueError as error:
            raise _invalid("/email", str(error)) from None

    @property
    def username_key(self) -> str:
        return key_of(self.username)

    @property
    def email_key(self) -> str:
        return key_of(self.email)


@dataclass
class User:
    user_id: UUID
    names: Names
    password_hash: str = field(repr=False)
    signup_date: datetime
    full_name: str | None = None
    tags: tuple[str, ...] = ()
    roles: tuple[Role, ...] = (Role.CUSTOMER,)
    is_active: bool = True
    email_verified: bool = False
    version: int = 1

    def __post_init__(self) -> None:
        """Raises Invalid."""
        if self.full_name is not None and len(self.full_name) > LONGEST_NAME:
            raise _invalid("/full_name", f"at most {LONGEST_NAME} characters")
        if len(self.tags) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in self.tags):
            raise _invalid("/tags", f"at most {MOST_TAGS}, each at most {LONGEST_TAG} characters")

    @property
    def is_admin(self) -> bool:
        """Able to act as one."""
        return self.is_active and Role.ADMIN in self.roles

    def check_active(self) -> None:
        """Raises UserInactive."""
        if not self.is_active:
            raise UserInactive(user_id=str(self.user_id))

    def describe(self, change: ChangeProfile) -> None:
        """Change what the person says about themself. Raises UserInactive, Invalid."""
        self.check_active()
        given = change.model_dump(include=change.model_fields_set)
        self._change(**given)

    def appoint(self, roles: tuple[Role, ...] | None, *, active: bool | None) -> None:
        """Change what the person may do; None leaves it."""
        self._change(
            roles=self.roles if roles is None else _once(roles),
            is_active=self.is_active if active is None else active,
        )

    def check_admin_left(self, *, was_admin: bool, others: bool) -> None:
        """Raises LastAdmin when nobody would be left to undo this."""
        if was_admin and not self.is_admin and not others:
            raise LastAdmin(user_id=str(self.user_id))

    def _change(self, **values: object) -> None:
        if all(getattr(self, name) == value for name, value in values.items()):
            return
        for name, value in values.items():
            setattr(self, name, value)
        self.version += 1
        self.__post_init__()


@dataclass(frozen=True)
class RefreshToken:
    """Opaque to its bearer: which session (128 random bits), and the proof (256 random bits).

    The first part stays the same in all tokens of a session, so that an old one, of whatever
    age, is known for what it is. Only hashes of both are kept.
    """

    family: bytes = field(repr=False)
    proof: bytes = field(repr=False)

    @classmethod
    def new(cls, family: bytes | None = None) -> Self:
        return cls(family or token_bytes(16), token_bytes(32))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadRefreshToken."""
        try:
            raw = urlsafe_b64decode(text.encode("ascii"))
        except ValueError:
            raise BadRefreshToken from None
        token = cls(raw[:16], raw[16:])
        if token.text != text or len(token.proof) != 32:  # noqa: PLR2004 - as made above
            raise BadRefreshToken
        return token

    @property
    def text(self) -> str:
        return urlsafe_b64encode(self.family + self.proof).decode()

    @property
    def family_hash(self) -> bytes:
        return hashlib.sha256(self.family).digest()

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.family + self.proof).digest()


class Trade(Enum):
    """What came of presenting a refresh token."""

    DONE = auto()
    REFUSED = auto()
    REUSED = auto()


@dataclass
class Session:
    """One sign-in and all the refresh tokens that descend from it (RFC 9700: a family)."""

    session_id: UUID
    user_id: UUID
    family_hash: bytes = field(repr=False)
    token_hash: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime
    previous_hash: bytes | None = field(default=None, repr=False)
    rotated_at: datetime | None = None
    revoked_at: datetime | None = None

    @classmethod
    def opened(cls, session_id: UUID, user_id: UUID, token: RefreshToken, now: datetime) -> Self:
        return cls(
            session_id,
            user_id,
            token.family_hash,
            token.hash,
            created_at=now,
            expires_at=now + SESSION_LIFETIME,
        )

    def trade(self, presented: RefreshToken, fresh: RefreshToken, now: datetime) -> Trade:
        """Put the fresh token in the place of the presented one, or end the session."""
        if self.revoked_at or self.expires_at <= now:
            return Trade.REFUSED
        if presented.hash == self.token_hash:
            self.previous_hash, self.rotated_at = self.token_hash, now
        elif not self._answer_was_lost(presented, now):
            self.revoked_at = now
            return Trade.REUSED
        self.token_hash = fresh.hash
        return Trade.DONE

    def _answer_was_lost(self, presented: RefreshToken, now: datetime) -> bool:
        """The grace counts from the first trade, so asking again and again does not extend it."""
        return (
            presented.hash == self.previous_hash
            and self.rotated_at is not None
            and now - self.rotated_at <= GRACE
        )


def _once(roles: Iterable[Role]) -> tuple[Role, ...]:
    return tuple(dict.fromkeys(roles))


def _invalid(field_name: str, message: str) -> Invalid:
    errors = [{"field": field_name, "code": "value_error", "message": message}]
    return Invalid(f"{field_name}: {message}.", errors=errors)
