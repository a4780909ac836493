"""Errors that many routes share, for their `responses`; one tuple for each cause."""

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
    Forbidden,
    HeadersTooLarge,
    InternalError,
    MalformedRequest,
    PreconditionFailed,
    PreconditionRequired,
    RequestTimeout,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
)

# any route; `extend_openapi` adds these
COMMON_ERRORS: Final = (
    ValidationFailed,
    TooManyRequests,
    HeadersTooLarge,
    InternalError,
    Unavailable,
)
# routes that take a body; `extend_openapi` adds these
BODY_ERRORS: Final = (MalformedRequest, BodyTooLarge, UnsupportedMediaType, RequestTimeout)
# routes that need an access token, and so validate it and read the database
AUTHENTICATED_ERRORS: Final = (Unauthenticated, Forbidden, ValidationFailed, Unavailable)
# routes that accept an Idempotency-Key
IDEMPOTENCY_ERRORS: Final = (IdempotencyKeyInvalid, InFlight, LeaseLost, PayloadMismatch)
# routes that require an Idempotency-Key
REQUIRED_IDEMPOTENCY_ERRORS: Final = (IdempotencyKeyMissing, *IDEMPOTENCY_ERRORS)
# routes that require If-Match
VERSION_ERRORS: Final = (PreconditionRequired, PreconditionFailed)
