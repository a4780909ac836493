"""Field types that products and the list of them share."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from markethall.shared.model import Text


class ProductStatus(StrEnum):
    """Only active products are for sale, and seen by the public."""

    DRAFT = "draft"
    ACTIVE = "active"
    ARCHIVED = "archived"


Label = Annotated[Text, Field(min_length=1, max_length=100)]
Tag = Annotated[Text, Field(min_length=1, max_length=50, examples=["green"])]
