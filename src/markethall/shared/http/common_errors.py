"""Groups of errors that routes list in their `responses`, one tuple for each feature of a route."""

from typing import Final

from markethall.shared.idempotency.records import (
    IdempotencyKeyInvalid,
    IdempotencyKeyMissing,
    InFlight,
    LeaseLost,
    PayloadMismatch,
)
from markethall.shared.kernel.errors import (
    BodyTooLarge,
    CardNumberRefused,
    Forbidden,
    HeadersTooLarge,
    InternalError,
    MalformedRequest,
    Overloaded,
    PreconditionFailed,
    PreconditionRequired,
    RequestTimeout,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
)

# every route may answer with these; `extend_openapi` adds them
COMMON_ERRORS: Final = (
    ValidationFailed,
    TooManyRequests,
    HeadersTooLarge,
    InternalError,
    Unavailable,
    Overloaded,
)
# for routes of the public API; the internal API does not check for card numbers, because a public
# route already has
PUBLIC_ERRORS: Final = (CardNumberRefused,)
# for routes that take a body; `extend_openapi` adds them
BODY_ERRORS: Final = (
    MalformedRequest,
    BodyTooLarge,
    UnsupportedMediaType,
    RequestTimeout,
)
# for routes that require an access token; Unavailable: the public keys cannot be fetched
AUTHENTICATED_ERRORS: Final = (Unauthenticated, Forbidden, ValidationFailed, Unavailable)
# for routes that accept an Idempotency-Key
IDEMPOTENCY_ERRORS: Final = (IdempotencyKeyInvalid, InFlight, LeaseLost, PayloadMismatch)
# for routes that require an Idempotency-Key
REQUIRED_IDEMPOTENCY_ERRORS: Final = (IdempotencyKeyMissing, *IDEMPOTENCY_ERRORS)
# for routes that require If-Match
VERSION_ERRORS: Final = (PreconditionRequired, PreconditionFailed)
