"""The entities of reviews."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True)
class Review:
    review_id: UUID
    product_id: UUID
    user_id: UUID
    author: str
    rating: int
    text: str
    created_at: datetime
