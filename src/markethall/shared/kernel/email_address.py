from typing import Annotated, Final

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field

from markethall.shared.kernel.model import Text

MAX_EMAIL_LENGTH: Final = 254


def normalize_email(text: str) -> str:
    """Return the canonical form of an address. Raises ValueError with a readable message."""
    try:
        # test_environment accepts reserved domains such as example.test (RFC 2606)
        validated = validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise ValueError(str(error).rstrip(".")) from None
    return validated.normalized


EmailAddress = Annotated[
    Text,
    Field(
        max_length=MAX_EMAIL_LENGTH,
        json_schema_extra={"format": "email"},
        examples=["ada@example.com"],
    ),
    AfterValidator(normalize_email),
]
