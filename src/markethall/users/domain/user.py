"""The rules of accounts and guests."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Final, Self
from uuid import UUID

from markethall.shared.kernel.email_address import normalize_email
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.lookup_key import to_lookup_key
from markethall.shared.security.passwords import weakness
from markethall.users.contract import ChangeProfile, GuestAlreadyClaimed, Role, UserInactive
from markethall.users.contract.errors import LastAdmin, PasswordUnacceptable

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
