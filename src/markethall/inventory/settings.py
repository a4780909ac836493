"""The settings of inventory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from markethall.shared.composition.settings import ContextSettings

# the boundary and the headers of the part that contains the file
MULTIPART_OVERHEAD_BYTES: Final = 16 * 1024


class InventorySettings(ContextSettings):
    max_unpaid_orders_per_customer: Annotated[
        int,
        Field(ge=1, description="Unpaid orders per customer that may have reservations at a time"),
    ] = 20
    max_reserved_units_per_customer: Annotated[
        int,
        Field(
            ge=1, description="Units of one product that a customer may have reserved and not paid"
        ),
    ] = 1000
    max_import_bytes: Annotated[
        int, Field(ge=1024, description="Maximum size of a file to import")
    ] = 64 * 1024 * 1024

    media_directory: Annotated[
        Path | None,
        Field(
            description="The directory of uploaded images. Empty: `media` in the data directory. "
            "All processes that serve inventory must see the same directory"
        ),
    ] = None
    max_media_bytes: Annotated[
        int, Field(ge=1024, le=64 * 1024 * 1024, description="Maximum size of an uploaded image")
    ] = 10 * 1024 * 1024
    media_max_pixels: Annotated[
        int,
        Field(
            ge=1_000_000,
            le=268_000_000,
            description="Maximum width times height of an uploaded image; a million pixels take "
            "about 12 MB of memory while the image is processed",
        ),
    ] = 30_000_000

    @property
    def streaming_body_limits(self) -> Mapping[str, int]:
        return {
            "/imports": self.max_import_bytes,
            "/media": self.max_media_bytes + MULTIPART_OVERHEAD_BYTES,
        }
