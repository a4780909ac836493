"""What the rest of the hall may know about users."""

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
    """A person who may buy."""

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
    """What a neighbour may ask."""

    async def get_active_customer(self, ctx: CallContext, user_id: UUID) -> Customer:
        """The person, if they may buy now. Raises UserNotFound, UserInactive."""


# What this context's own router needs


class Role(StrEnum):
    """What a person is; shared/http/route_policies.py says which scopes each role gives."""

    CUSTOMER = "customer"
    STAFF_CATALOGUE = "staff:catalogue"
    STAFF_ORDERS = "staff:orders"
    STAFF_PAYMENTS = "staff:payments"
    STAFF = "staff"
    ADMIN = "admin"


class UserView(Dto):
    """A person as they, and those who manage users, see them."""

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
    """Only the fields that were set are changed; a full name of None is taken away."""

    full_name: str | None = None
    tags: tuple[str, ...] = ()


class ChangeUser(Dto):
    """What is None stays as it is."""

    is_active: bool | None = None
    roles: tuple[Role, ...] | None = None


class TokenPair(Dto):
    """RFC 6749, section 5.1. `expires_in` is in seconds and about the access token."""

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
    """Case does not count. Details: username."""

    code = "users.username_taken"
    status = 409
    title = "This user name is taken"


class EmailTaken(DomainError):
    """Case and Unicode form do not count. Details: none."""

    code = "users.email_taken"
    status = 409
    title = "There is an account with this e-mail address"


class PasswordUnacceptable(DomainError):
    """Details: reason (too_short, too_long, too_common, personal)."""

    code = "users.password_unacceptable"
    status = 422
    title = "This password is not acceptable"


class BadCredentials(DomainError):
    """The same for an unknown name, a wrong password and a disabled account."""

    code = "users.bad_credentials"
    status = 401
    title = "The name or the password is wrong"


class BadRefreshToken(DomainError):
    """Unknown, used before, expired or revoked, or the account is disabled."""

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
    """People: who they are and what they may be."""

    async def register(
        self, ctx: CallContext, command: Register, attempt: IdempotentCommand
    ) -> UserView:
        """A new customer, whose user id is the attempt's.

        Raises ValidationFailed, PasswordUnacceptable, UsernameTaken, EmailTaken, Overloaded.
        """

    async def get_me(self, ctx: CallContext) -> UserView:
        """The caller's own account. Raises UserNotFound, UserInactive."""

    async def update_me(
        self, ctx: CallContext, change: ChangeProfile, expected_versions: ExpectedVersions
    ) -> UserView:
        """`seen`: what the caller has read, if they care.

        Raises UserNotFound, UserInactive, PreconditionFailed, ValidationFailed.
        """

    async def change_password(
        self, ctx: CallContext, current_password: str, new_password: str
    ) -> None:
        """Ends every other session of the caller; the one of this access token goes on.

        Raises UserNotFound, UserInactive, BadCredentials, PasswordUnacceptable, Overloaded.
        """

    async def list_users(self, ctx: CallContext, limit: int, cursor: str | None) -> Page[UserView]:
        """In the order of their ids, which is that of signing up. Raises CursorInvalid."""

    async def get_user(self, ctx: CallContext, user_id: UUID) -> UserView:
        """Raises UserNotFound."""

    async def change_user(
        self,
        ctx: CallContext,
        user_id: UUID,
        change: ChangeUser,
        expected_versions: ExpectedVersions,
    ) -> UserView:
        """Disabling ends all sessions. An access token keeps its scopes until it expires.

        Raises UserNotFound, PreconditionFailed, LastAdmin.
        """

    async def count(self) -> int:
        """All users, disabled ones included."""

    async def create_staff(
        self, email: str, role: str, password: str, username: str | None = None
    ) -> UserView:
        """For the command line: a new account with this role.

        Without a name it gets one made from the e-mail address.
        Raises ValidationFailed, PasswordUnacceptable, UsernameTaken, EmailTaken, Overloaded.
        """

    async def create_first_admin(self, email: str, password: str) -> UserView | None:
        """For the start of a process: an admin where no active one is, else None.

        An account that has this address already is not promoted. Raises ValidationFailed,
        PasswordUnacceptable, EmailTaken, Overloaded.
        """


class Sessions(Protocol):
    """Signing in, staying in, and the keys that prove it."""

    async def sign_in(self, ctx: CallContext, login: str, password: str) -> TokenPair:
        """Open a session. `name` is the user name or the e-mail address.

        Raises BadCredentials, Overloaded.
        """

    async def refresh(self, ctx: CallContext, refresh_token: str) -> TokenPair:
        """Trade a refresh token for a new pair, once (RFC 9700, section 4.14).

        A token that was traded before ends its session, for it may be a thief's. One exception:
        the token that was traded last is good for ten more seconds, for a client that never got
        the answer. Raises BadRefreshToken.
        """

    async def revoke(self, ctx: CallContext, refresh_token: str) -> None:
        """End the token's session, if it is a token (RFC 7009)."""

    async def get_jwks(self, ctx: CallContext) -> JwkSet:
        """The keys that access tokens are to be checked with."""

    async def get_issuer(self) -> str:
        """The address that all tokens name."""

    async def compute_fingerprint(self, secret: str) -> str:
        """A keyed digest: two requests can be compared without keeping the secret they carry."""
