"""The canonical form of e-mail addresses."""

from email_validator import EmailNotValidError, validate_email


def normalize_email(text: str) -> str:
    """Return the canonical form of an address. Raises ValueError with a readable message."""
    try:
        # test_environment accepts reserved domains such as example.test (RFC 2606)
        validated = validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise ValueError(str(error).rstrip(".")) from None
    return validated.normalized
