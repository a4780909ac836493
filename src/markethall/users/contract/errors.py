"""The errors of the HTTP API of users, without those of guests."""

from markethall.shared.kernel.errors import DomainError


class UsernameTaken(DomainError):
    """Another user has this name. The comparison ignores letter case. Details: username."""

    code = "users.username_taken"
    status = 409
    title = "This user name is taken"


class EmailTaken(DomainError):
    """Another user has this e-mail address. The error has no details.

    The comparison ignores letter case and the Unicode normalization form.
    """

    code = "users.email_taken"
    status = 409
    title = "There is an account with this e-mail address"


class PasswordUnacceptable(DomainError):
    """The password is not accepted. Details: reason (too_short, too_long, too_common, personal)."""

    code = "users.password_unacceptable"
    status = 422
    title = "This password is not acceptable"


class BadCredentials(DomainError):
    """The login is unknown, the password is wrong, or the account is disabled.

    All three cases give the same error, so that a client cannot find out which accounts exist.
    """

    code = "users.bad_credentials"
    status = 401
    title = "The name or the password is wrong"


class BadRefreshToken(DomainError):
    """The refresh token is unknown, exchanged, expired or revoked, or the account is disabled."""

    code = "users.bad_refresh_token"
    status = 401
    title = "The refresh token is not good any more"


class UnsupportedGrantType(DomainError):
    """The token endpoint does not support this `grant_type`. Details: supported."""

    code = "users.unsupported_grant_type"
    status = 400
    title = "This grant type is not supported"


class LastAdmin(DomainError):
    """The change would leave no active admin. Details: user_id."""

    code = "users.last_admin"
    status = 409
    title = "The last active admin cannot be disabled or demoted"
