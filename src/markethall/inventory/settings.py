from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from markethall.shared.composition.settings import CommaList, ContextSettings, Secret, SettingsError
from markethall.shared.kernel.languages import LANGUAGE_TAG

# bytes for the boundary and the headers of the part that contains the file
MULTIPART_OVERHEAD_BYTES: Final = 16 * 1024


@dataclass(frozen=True)
class S3Bucket:
    """A bucket and the key for it. Empty texts mean the defaults of the AWS tools."""

    name: str
    region: str
    prefix: str = ""
    endpoint: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)


class InventorySettings(ContextSettings):
    max_unpaid_orders_per_customer: int = Field(
        20, ge=1, description="Unpaid orders per customer that may have reservations at a time"
    )
    max_reserved_units_per_customer: int = Field(
        1000,
        ge=1,
        description="Units of one product that a customer may have reserved and not paid",
    )
    max_import_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="Maximum size of a file to import"
    )

    catalogue_language: str = Field(
        "",
        max_length=35,
        pattern=rf"^({LANGUAGE_TAG})?$",
        description="Language of the names and descriptions without translation, such as `en`. "
        "Accept-Language can select it, and Content-Language names it. Empty: unknown; then "
        "a client gets any translation that it accepts, even if it prefers this language",
    )

    media_storage: Literal["directory", "s3"] = Field(
        "directory",
        description="Where uploaded images are stored. s3: a bucket of S3 or of a compatible "
        "service; needs the extra `s3`",
    )
    media_directory: Path | None = Field(
        None,
        description="The directory of uploaded images. Empty: `media` in the data directory. "
        "All processes that serve inventory must use the same directory",
    )
    media_s3_bucket: str = Field(
        "", pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$", description="The bucket"
    )
    media_s3_prefix: str = Field(
        "",
        pattern=r"^([A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*)?$",
        description="The folder of the images in the bucket. Empty: the whole bucket. No other "
        "objects may be in it",
    )
    media_s3_region: str = Field("us-east-1", min_length=1, description="The region")
    media_s3_endpoint: str = Field(
        "",
        pattern=r"^(https?://[^\s/?#@]+/?)?$",
        description="The address of a compatible service. Empty: the address of Amazon S3",
    )
    media_s3_access_key_id: Secret = Field(
        SecretStr(""),
        description="Empty: the credentials of the environment, as the AWS tools find them",
    )
    media_s3_secret_access_key: Secret = Field(SecretStr(""), description="The secret of the key")
    max_media_bytes: int = Field(
        10 * 1024 * 1024,
        ge=1024,
        le=64 * 1024 * 1024,
        description="Maximum size of an uploaded image",
    )
    media_max_pixels: int = Field(
        25_000_000,
        ge=1_000_000,
        le=268_000_000,
        description="Maximum width times height of an uploaded image; a million pixels take "
        "up to 25 MB of memory while the image is processed",
    )

    import_image_networks: Annotated[
        tuple[str, ...],
        NoDecode,
        CommaList,
        Field(
            description="Internal networks, as a comma list, from which imports may fetch images, "
            "on any port: `10.1.0.0/16`. All other images are fetched from public addresses only"
        ),
    ] = ()

    @field_validator("import_image_networks")
    @classmethod
    def _validate_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ip_network(network)
        return networks

    @model_validator(mode="after")
    def _check_media_storage(self) -> Self:
        has_id, has_secret = (
            bool(secret.get_secret_value())
            for secret in (self.media_s3_access_key_id, self.media_s3_secret_access_key)
        )
        if self.media_storage == "s3" and not self.media_s3_bucket:
            raise SettingsError(["MARKETHALL_MEDIA_S3_BUCKET: is required with MEDIA_STORAGE=s3"])
        if has_id != has_secret:
            raise SettingsError(
                ["MARKETHALL_MEDIA_S3_ACCESS_KEY_ID: needs MEDIA_S3_SECRET_ACCESS_KEY too"]
            )
        return self

    @property
    def media_bucket(self) -> S3Bucket:
        return S3Bucket(
            name=self.media_s3_bucket,
            prefix=self.media_s3_prefix,
            region=self.media_s3_region,
            endpoint=self.media_s3_endpoint.rstrip("/"),
            access_key_id=self.media_s3_access_key_id.get_secret_value(),
            secret_access_key=self.media_s3_secret_access_key.get_secret_value(),
        )

    @property
    def streaming_body_limits(self) -> Mapping[str, int]:
        return {
            "/imports": self.max_import_bytes,
            "/media": self.max_media_bytes + MULTIPART_OVERHEAD_BYTES,
        }
