"""The contract of users: DTOs, errors, events and Protocols."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Protocol
from uuid import UUID

from pydantic import Field

from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.pagination import Page
from markethall.shared.messaging.events import Event


class GuestClaimed(Event):
    """A user has claimed a guest, whose data now belongs to the user.

    Every context that stores data of guests changes the owner from `guest_id` to `user_id`.
    """

    type: ClassVar[str] = "users.guest_claimed"
    guest_id: UUID
    user_id: UUID

    @property
    def key(self) -> UUID:
        return self.guest_id


class Customer(Dto):
    """The data of a buyer, for other contexts: of an active user, or of a guest.

    For a guest, `user_id` is the id of the guest, and `email` is empty, because guests give the
    address with each order.
    """

    user_id: UUID
    email: str
    full_name: str | None
    is_guest: bool = False


class UserNotFound(DomainError):
    """No user has this id. Details: user_id."""

    code = "users.not_found"
    status = 404
    title = "There is no such user"


class UserInactive(DomainError):
    """The account is disabled, or a user has claimed the guest. Details: user_id."""

    code = "users.inactive"
    status = 403
    title = "This account is disabled"


class IssueOrderToken(Dto):
    """Issue a token of an order. `owner_id` is the user or guest who has the order."""

    order_id: UUID
    owner_id: UUID


class OrderToken(Dto):
    """A token that gives access to one order."""

    order_token: str = Field(repr=False)
    expires_in: int


class Users(Protocol):
    """The calls that other contexts may make."""

    async def get_active_customer(self, ctx: CallContext, user_id: UUID) -> Customer:
        """Return the user or the guest with this id.

        Raises UserNotFound, UserInactive (the account is disabled, or the guest is claimed).
        """

    async def issue_order_token(self, ctx: CallContext, command: IssueOrderToken) -> OrderToken:
        """Return a token with which its holder sees, pays, cancels and returns the order.

        The caller must have checked that the holder may do so. The owner may be a guest that is
        claimed or deleted, because the orders of a guest outlive it. Raises UserInactive if the
        owner is a user whose account is disabled.
        """


# The HTTP API of users. Other contexts use only the definitions above.


class Role(StrEnum):
    """Roles of users. `shared/kernel/scopes.py` maps each role to scopes."""

    CUSTOMER = "customer"
    STAFF_CATALOGUE = "staff:catalogue"
    STAFF_ORDERS = "staff:orders"
    STAFF_PAYMENTS = "staff:payments"
    STAFF = "staff"
    ADMIN = "admin"


class UserView(Dto):
    """A user, as shown to the owner of the account and to staff with the scope users:manage."""

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
    # a token of the guest that the new user claims
    guest_token: Annotated[str | None, Field(repr=False)] = None


class ChangeProfile(Dto):
    """A change of a profile. Fields that are not set stay unchanged.

    A `full_name` that is set to None removes the name.
    """

    full_name: str | None = None
    tags: tuple[str, ...] = ()


class ChangeUser(Dto):
    """A change of a user by an admin. A field that is None stays unchanged."""

    is_active: bool | None = None
    roles: tuple[Role, ...] | None = None


class TokenPair(Dto):
    """The token response of RFC 6749, section 5.1.

    `expires_in` is the lifetime of the access token in seconds.
    """

    access_token: Annotated[str, Field(repr=False)]
    token_type: Literal["bearer"] = "bearer"
    expires_in: int
    refresh_token: Annotated[str, Field(repr=False)]
    scope: str


class AccessView(Dto):
    """The current roles and scopes of a user.

    An older access token may contain a scope that is missing here. This scope loses its effect
    within a minute.
    """

    user_id: UUID
    roles: tuple[Role, ...]
    scopes: tuple[str, ...]


class Jwk(Dto):
    """A public Ed25519 key (RFC 8037)."""

    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    use: Literal["sig"] = "sig"
    alg: Literal["EdDSA"] = "EdDSA"
    kid: str
    x: str


class JwkSet(Dto):
    """A set of public keys (RFC 7517, section 5)."""

    keys: tuple[Jwk, ...]


class Accounts(Protocol):
    """The operations of the HTTP API on accounts, for users and for staff."""

    async def register(
        self, ctx: CallContext, command: Register, attempt: IdempotentCommand
    ) -> UserView:
        """Create a customer account. `attempt.id` becomes the user id.

        With `guest_token`, the user also claims the guest, in the same transaction. Raises
        ValidationFailed, PasswordUnacceptable, UsernameTaken, EmailTaken, Overloaded,
        BadGuestToken, GuestAlreadyClaimed.
        """

    async def get_me(self, ctx: CallContext) -> UserView:
        """Return the caller's account. Raises UserNotFound, UserInactive."""

    async def update_me(
        self, ctx: CallContext, change: ChangeProfile, expected_versions: ExpectedVersions
    ) -> UserView:
        """Update the caller's profile.

        Raises UserNotFound, UserInactive, ValidationFailed, PreconditionFailed (the current version
        is not among `expected_versions`).
        """

    async def change_password(
        self, ctx: CallContext, current_password: str, new_password: str
    ) -> None:
        """Change the password. End all sessions of the caller except the current one.

        Raises UserNotFound, UserInactive, BadCredentials, PasswordUnacceptable, TooManyRequests
        (after many wrong passwords), Overloaded.
        """

    async def list_users(self, ctx: CallContext, limit: int, cursor: str | None) -> Page[UserView]:
        """Return users in the order of registration. Raises CursorInvalid."""

    async def get_user(self, ctx: CallContext, user_id: UUID) -> UserView:
        """Return a user. Raises UserNotFound, also if the caller may not see this user."""

    async def change_user(
        self,
        ctx: CallContext,
        user_id: UUID,
        change: ChangeUser,
        expected_versions: ExpectedVersions,
    ) -> UserView:
        """Change the roles of an account, disable it or enable it. Disabling ends its sessions.

        An older access token may contain a staff scope that the new roles do not grant. Such a
        scope loses its effect within a minute. Raises Forbidden, UserNotFound, PreconditionFailed,
        LastAdmin.
        """

    async def count(self) -> int:
        """Return the number of users, including disabled ones."""

    async def create_staff(
        self, email: str, role: str, password: str, username: str | None = None
    ) -> UserView:
        """Create an account with this role. The command line uses it.

        If `username` is None, the name is derived from the e-mail address. Raises
        ValidationFailed, PasswordUnacceptable, UsernameTaken, EmailTaken, Overloaded.
        """

    async def create_first_admin(self, email: str, password: str) -> UserView | None:
        """Create an admin at start-up. If an active admin exists, return None.

        Raises ValidationFailed, PasswordUnacceptable, EmailTaken, Overloaded.
        """


class Sessions(Protocol):
    """The public API of sessions: sign-in, refresh tokens, public keys of access tokens."""

    async def sign_in(self, ctx: CallContext, login: str, password: str) -> TokenPair:
        """Check the password and open a session. `login` is the user name or the e-mail address.

        Raises BadCredentials, TooManyRequests (after many wrong passwords), Overloaded.
        """

    async def refresh(self, ctx: CallContext, refresh_token: str) -> TokenPair:
        """Exchange a refresh token for a new pair of tokens (RFC 9700, section 4.14).

        A token can be exchanged once. A later exchange ends the session, because the token may be
        stolen, and raises BadRefreshToken. But within ten seconds after the first exchange, the
        same token is accepted again, because the client may have lost the response, or several
        browser tabs may refresh at the same time. The result then contains the current refresh
        token of the session.
        """

    async def revoke(self, ctx: CallContext, refresh_token: str) -> None:
        """End the session of a refresh token. Ignore an invalid token (RFC 7009, section 2.2)."""

    async def get_access(self, ctx: CallContext) -> AccessView:
        """Return the current roles and scopes of the caller. The access token may contain others.

        Raises Unauthenticated with the reason `revoked` when the account is disabled or deleted, or
        when the session of the token has ended.
        """

    async def get_jwks(self, ctx: CallContext) -> JwkSet:
        """Return the public keys of access tokens."""

    async def get_issuer(self) -> str:
        """Return the value of the `iss` claim in access tokens."""

    async def compute_fingerprint(self, secret: str) -> str:
        """Return a keyed digest of a secret.

        The digest replaces the secret in the request, whose hash is stored in the idempotency
        record. Equal secrets have equal digests, so a retried request has the same hash.
        """


# Guests


class GuestTokens(TokenPair):
    """The tokens of a new guest."""

    guest_id: UUID


class GuestClaimView(Dto):
    """A claim: the guest's orders and payments belong to the user."""

    guest_id: UUID
    user_id: UUID
    claimed_at: datetime


class BadGuestToken(DomainError):
    """The token is not a valid token of a guest.

    It is expired, exchanged, revoked or forged, or it is the token of a user. There are no details.
    """

    code = "users.bad_guest_token"
    status = 422
    title = "This is not a valid token of a guest"


class GuestAlreadyClaimed(DomainError):
    """Another user has claimed this guest. Details: guest_id."""

    code = "users.guest_already_claimed"
    status = 409
    title = "The orders of this guest belong to another user"


class Guests(Protocol):
    """The public API of guests, who buy without an account."""

    async def create_guest(self, ctx: CallContext) -> GuestTokens:
        """Create a guest and open its session."""

    async def claim_guest(
        self, ctx: CallContext, guest_token: str, attempt: IdempotentCommand
    ) -> GuestClaimView:
        """Give the orders and payments of a guest to the caller. End the guest's session.

        `guest_token` is the access token or the refresh token of the guest. A repeated claim by the
        same user changes nothing. Raises UserNotFound, UserInactive, BadGuestToken,
        GuestAlreadyClaimed.
        """

    async def count_guests(self) -> int:
        """Return the number of guests that are neither purged nor claimed."""
