"""The contract of users: DTOs, errors and Protocols."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Protocol
from uuid import UUID

from pydantic import Field

from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.pagination import Page


class Customer(Dto):
    """An active user, as other contexts see them."""

    user_id: UUID
    email: str
    full_name: str | None


class UserNotFound(DomainError):
    """Details: user_id."""

    code = "users.not_found"
    status = 404
    title = "There is no such user"


class UserInactive(DomainError):
    """Details: user_id."""

    code = "users.inactive"
    status = 403
    title = "This account is disabled"


class Users(Protocol):
    """Calls for other contexts."""

    async def get_active_customer(self, ctx: CallContext, user_id: UUID) -> Customer:
        """Return the user if active. Raises UserNotFound, UserInactive."""


# For this context's own router


class Role(StrEnum):
    """Roles of users; shared/kernel/scopes.py maps each role to scopes."""

    CUSTOMER = "customer"
    STAFF_CATALOGUE = "staff:catalogue"
    STAFF_ORDERS = "staff:orders"
    STAFF_PAYMENTS = "staff:payments"
    STAFF = "staff"
    ADMIN = "admin"


class UserView(Dto):
    """A user, as the account owner and user managers see it."""

    user_id: UUID
    username: str
    email: str
    full_name: str | None
    tags: tuple[str, ...]
    roles: tuple[Role, ...]
    is_active: bool
    email_verified: bool
    signup_date: datetime
    version: int


class Register(Dto):
    username: str
    email: str
    password: Annotated[str, Field(repr=False)]
    full_name: str | None = None
    tags: tuple[str, ...] = ()


class ChangeProfile(Dto):
    """Only fields that were set change; a `full_name` of None removes it."""

    full_name: str | None = None
    tags: tuple[str, ...] = ()


class ChangeUser(Dto):
    """Fields that are None stay unchanged."""

    is_active: bool | None = None
    roles: tuple[Role, ...] | None = None


class TokenPair(Dto):
    """The token response of RFC 6749, section 5.1.

    `expires_in` is the access token's, in seconds.
    """

    access_token: Annotated[str, Field(repr=False)]
    token_type: Literal["bearer"] = "bearer"
    expires_in: int
    refresh_token: Annotated[str, Field(repr=False)]
    scope: str


class Jwk(Dto):
    """A public Ed25519 key (RFC 8037)."""

    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    use: Literal["sig"] = "sig"
    alg: Literal["EdDSA"] = "EdDSA"
    kid: str
    x: str


class JwkSet(Dto):
    """RFC 7517, section 5."""

    keys: tuple[Jwk, ...]


class UsernameTaken(DomainError):
    """The name exists, in any case. Details: username."""

    code = "users.username_taken"
    status = 409
    title = "This user name is taken"


class EmailTaken(DomainError):
    """The address exists, in any case or Unicode form. Details: none."""

    code = "users.email_taken"
    status = 409
    title = "There is an account with this e-mail address"


class PasswordUnacceptable(DomainError):
    """Details: reason (too_short, too_long, too_common, personal)."""

    code = "users.password_unacceptable"
    status = 422
    title = "This password is not acceptable"


class BadCredentials(DomainError):
    """Unknown name, wrong password or disabled account; the error is the same for all."""

    code = "users.bad_credentials"
    status = 401
    title = "The name or the password is wrong"


class BadRefreshToken(DomainError):
    """Unknown, used, expired or revoked token, or disabled account."""

    code = "users.bad_refresh_token"
    status = 401
    title = "The refresh token is not good any more"


class UnsupportedGrantType(DomainError):
    """Details: supported."""

    code = "users.unsupported_grant_type"
    status = 400
    title = "This grant type is not supported"


class LastAdmin(DomainError):
    """Details: user_id."""

    code = "users.last_admin"
    status = 409
    title = "The last active admin cannot be disabled or demoted"


class Accounts(Protocol):
    """Accounts: registration, profiles, roles."""

    async def register(
        self, ctx: CallContext, command: Register, attempt: IdempotentCommand
    ) -> UserView:
        """Create a customer account; its user id is the attempt's id.

        Raises ValidationFailed, PasswordUnacceptable, UsernameTaken, EmailTaken, Overloaded.
        """

    async def get_me(self, ctx: CallContext) -> UserView:
        """Return the caller's account. Raises UserNotFound, UserInactive."""

    async def update_me(
        self, ctx: CallContext, change: ChangeProfile, expected_versions: ExpectedVersions
    ) -> UserView:
        """Update the caller's profile if its version is one of `expected_versions`, when given.

        Raises UserNotFound, UserInactive, PreconditionFailed, ValidationFailed.
        """

    async def change_password(
        self, ctx: CallContext, current_password: str, new_password: str
    ) -> None:
        """Change the password and end all sessions of the caller but the current one.

        Raises UserNotFound, UserInactive, BadCredentials, PasswordUnacceptable, Overloaded.
        """

    async def list_users(self, ctx: CallContext, limit: int, cursor: str | None) -> Page[UserView]:
        """Return users in the order of registration. Raises CursorInvalid."""

    async def get_user(self, ctx: CallContext, user_id: UUID) -> UserView:
        """Raises UserNotFound."""

    async def change_user(
        self,
        ctx: CallContext,
        user_id: UUID,
        change: ChangeUser,
        expected_versions: ExpectedVersions,
    ) -> UserView:
        """Change roles or disable an account, which ends its sessions.

        Access tokens keep their scopes until they expire. Raises UserNotFound, PreconditionFailed,
        LastAdmin.
        """

    async def count(self) -> int:
        """Return the number of users, including disabled ones."""

    async def create_staff(
        self, email: str, role: str, password: str, username: str | None = None
    ) -> UserView:
        """Create an account with this role, for the command line.

        Without a name it gets one derived from the e-mail address. Raises ValidationFailed,
        PasswordUnacceptable, UsernameTaken, EmailTaken, Overloaded.
        """

    async def create_first_admin(self, email: str, password: str) -> UserView | None:
        """Create an admin at start-up if no active one exists, else return None.

        An existing account with this address is not promoted. Raises ValidationFailed,
        PasswordUnacceptable, EmailTaken, Overloaded.
        """


class Sessions(Protocol):
    """Sessions: sign-in, refresh tokens, the public keys of access tokens."""

    async def sign_in(self, ctx: CallContext, login: str, password: str) -> TokenPair:
        """Open a session. `login` is the user name or the e-mail address.

        Raises BadCredentials, Overloaded.
        """

    async def refresh(self, ctx: CallContext, refresh_token: str) -> TokenPair:
        """Exchange a refresh token for a new pair, once (RFC 9700, section 4.14).

        Reuse of an exchanged token ends its session, because the token may be stolen. Exception:
        the token exchanged last is accepted for ten more seconds, with the same new refresh token
        as answer, for a client that did not get the response or has two tabs. Raises
        BadRefreshToken.
        """

    async def revoke(self, ctx: CallContext, refresh_token: str) -> None:
        """End the session of a refresh token; ignore anything else (RFC 7009)."""

    async def get_jwks(self, ctx: CallContext) -> JwkSet:
        """Return the public keys of access tokens."""

    async def get_issuer(self) -> str:
        """Return the `iss` claim of all tokens."""

    async def compute_fingerprint(self, secret: str) -> str:
        """Return a keyed digest, which compares secrets of two requests without storing them."""
