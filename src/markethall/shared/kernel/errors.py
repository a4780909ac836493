"""Domain errors. A call to another context raises them unchanged, in process and over HTTP."""

from http import HTTPStatus
from typing import Any, ClassVar


class DomainError(Exception):
    """An expected error: a stable code, an HTTP status, structured details and a text."""

    code: ClassVar[str] = ""
    status: ClassVar[int] = 400
    title: ClassVar[str] = "The request was rejected"
    retryable: ClassVar[bool] = False
    by_code: ClassVar[dict[str, type["DomainError"]]] = {}

    def __init_subclass__(cls) -> None:
        if cls.code in DomainError.by_code:
            raise TypeError(f"two errors share the code {cls.code}")
        DomainError.by_code[cls.code] = cls

    def __init__(self, detail: str = "", /, **details: Any) -> None:
        super().__init__(self.code, details)
        self.detail = detail or f"{self.title}."
        self.details = details

    @property
    def retry_after(self) -> int | None:
        """The whole seconds after which a retry may succeed; None if it cannot succeed."""
        return self.details.get("retry_after", 1) if self.retryable else None

    @property
    def is_deterministic(self) -> bool:
        """Tell whether the same request would fail again in the same way.

        Only such an error is stored as the response for an idempotency key.
        """
        uncertain_statuses = {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS}
        is_server_error = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return not self.retryable and not is_server_error and self.status not in uncertain_statuses


class Unavailable(DomainError):
    """A dependency does not respond. Details: dependency, retry_after in seconds."""

    code = "system.unavailable"
    status = 503
    title = "A dependency is not available"
    retryable = True


class DeadlineExceeded(Unavailable):
    """A call exceeded its deadline; whether it took effect is unknown.

    Details: dependency, retry_after in seconds.
    """

    code = "system.deadline_exceeded"
    title = "The answer took too long"


class InternalError(DomainError):
    """A bug. Details: error_id, the request_id of the log line."""

    code = "system.internal"
    status = 500
    title = "Internal error"


class Overloaded(DomainError):
    """A bounded queue is full or slow. Details: retry_after in seconds."""

    code = "system.busy"
    status = 503
    title = "Too much work is waiting"
    retryable = True


class RouteNotFound(DomainError):
    code = "request.not_found"
    status = 404
    title = "There is nothing at this address"


class MethodNotAllowed(DomainError):
    code = "request.method_not_allowed"
    status = 405
    title = "This address does not take this method"


class MalformedRequest(DomainError):
    """The body cannot be parsed, repeats a name, or is nested too deep."""

    code = "request.malformed"
    status = 400
    title = "The request cannot be read"


class ValidationFailed(DomainError):
    """Details: errors, a list of objects with field (a JSON pointer), code and message."""

    code = "request.invalid"
    status = 422
    title = "The request is not valid"


class CardNumberRefused(DomainError):
    """The request contains a card number. Nothing of it is stored.

    Details: errors, a list with one object: field (a JSON pointer), code and message.
    """

    code = "request.card_number"
    status = 422
    title = "The request contains a card number"


class BodyTooLarge(DomainError):
    """Details: limit, in bytes."""

    code = "request.too_large"
    status = 413
    title = "The request body is too large"


class HeadersTooLarge(DomainError):
    """Details: limit, in bytes."""

    code = "request.headers_too_large"
    status = 431
    title = "The request headers are too large"


class UnsupportedMediaType(DomainError):
    """Details: supported, a list of content types."""

    code = "request.unsupported_media_type"
    status = 415
    title = "The content type is not supported"


class RequestTimeout(DomainError):
    code = "request.timeout"
    status = 408
    title = "The request body did not arrive in time"
    retryable = True


class TooManyRequests(DomainError):
    """Details: policy, the name of the limit; retry_after in seconds."""

    code = "request.rate_limited"
    status = 429
    title = "Too many requests"
    retryable = True


class Unauthenticated(DomainError):
    """The token is missing, invalid, expired or revoked (RFC 6750).

    Details: reason, a word such as "expired".
    """

    code = "auth.unauthenticated"
    status = 401
    title = "A valid access token is needed"


class Forbidden(DomainError):
    """Details: scope, the missing scope."""

    code = "auth.forbidden"
    status = 403
    title = "The token lacks a scope"


class PreconditionRequired(DomainError):
    code = "request.if_match_missing"
    status = 428
    title = "If-Match is required"


class PreconditionFailed(DomainError):
    """Details: etag, the current entity tag."""

    code = "request.if_match_failed"
    status = 412
    title = "The resource has changed since it was read"


class CalledWhileHoldingConnection(AssertionError):
    """A context called another while it held a database connection (docs/decisions/0009)."""
