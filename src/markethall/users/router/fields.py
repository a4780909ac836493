from typing import Annotated, Final

from pydantic import Field

from markethall.shared.kernel.model import Text, VisibleText
from markethall.shared.security.access_tokens import MAX_TOKEN_LENGTH
from markethall.shared.security.passwords import MAX_LENGTH as MAX_PASSWORD_LENGTH
from markethall.shared.security.passwords import MIN_LENGTH as MIN_PASSWORD_LENGTH
from markethall.users.domain.user import (
    MAX_FULL_NAME_LENGTH,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    USERNAME_PATTERN,
)

# larger than MAX_PASSWORD_LENGTH, so that the domain rejects a long new password with the clearer
# error PasswordUnacceptable
_MAX_PASSWORD_LENGTH: Final = 1024

Username = Annotated[
    Text,
    Field(
        pattern=USERNAME_PATTERN,
        json_schema_extra={"pattern": USERNAME_PATTERN},
        examples=["ada"],
    ),
]
Password = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=_MAX_PASSWORD_LENGTH,
        json_schema_extra={"format": "password"},
        examples=["correct horse battery staple"],
    ),
]
# A password that the user chooses. The schema only documents the limits of its length. The domain
# checks them and raises PasswordUnacceptable.
NewPassword = Annotated[
    Password,
    Field(
        json_schema_extra={
            "format": "password",
            "minLength": MIN_PASSWORD_LENGTH,
            "maxLength": MAX_PASSWORD_LENGTH,
        }
    ),
]
# an access token or a refresh token of a guest
GuestToken = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=MAX_TOKEN_LENGTH,
        json_schema_extra={"format": "password"},
        examples=["nOuXUyAkrY2vTHRMbKlP6Xm3WlVg6tVZ5SA1hWqjC0lV4Yw5f0rQ8aDhM3b7sT2e"],
    ),
]
FullName = Annotated[Text, Field(max_length=MAX_FULL_NAME_LENGTH, examples=["Ada Lovelace"])]
Tags = Annotated[
    tuple[Annotated[VisibleText, Field(min_length=1, max_length=MAX_TAG_LENGTH)], ...],
    Field(max_length=MAX_TAGS, fail_fast=True, examples=[["newsletter"]]),
]
