"""The contract of families for the HTTP API. A family is a product page of a shop."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Protocol
from uuid import UUID

from pydantic import ConfigDict, Field

from markethall.inventory.catalogue.contract.fields import (
    MAX_LANGUAGES,
    CategoryPath,
    Label,
    Language,
)
from markethall.inventory.catalogue.contract.products import (
    Description,
    FrozenTexts,
    FrozenTranslations,
    Images,
    PriceRange,
    ProductName,
    ProductView,
    RenderedResponse,
    Translation,
)
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.merge_patch import omittable_field, remove_null_defaults
from markethall.shared.kernel.metadata import MAX_METADATA_ENTRIES, MetadataName, MetadataValue
from markethall.shared.kernel.model import Dto, RequestModel, Text, VisibleText

# not longer than a `label_key`, so that the `label_key` of a slug is the slug
MAX_SLUG_LENGTH: Final = 150
_SLUG_PATTERN: Final = "^[a-z0-9]+(?:-[a-z0-9]+)*$"
MAX_SEO_TITLE_LENGTH: Final = 255
MAX_SEO_DESCRIPTION_LENGTH: Final = 1000
# the largest number of products in FamilyDetail
MAX_FAMILY_PRODUCTS: Final = 100

Slug = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=MAX_SLUG_LENGTH,
        pattern=_SLUG_PATTERN,
        json_schema_extra={"pattern": _SLUG_PATTERN},
        examples=["sencha"],
    ),
]
FamilyLabel = Annotated[Label, Field(examples=["sencha"])]
FamilyName = Annotated[ProductName, Field(examples=["Sencha"])]
SeoTitle = Annotated[
    VisibleText,
    Field(min_length=1, max_length=MAX_SEO_TITLE_LENGTH, examples=["Sencha from Uji"]),
]
SeoDescription = Annotated[VisibleText, Field(min_length=1, max_length=MAX_SEO_DESCRIPTION_LENGTH)]


class FamilyStatus(StrEnum):
    """Status of a family. Customers see only active families."""

    ACTIVE = "active"
    ARCHIVED = "archived"


class Seo(RequestModel):
    """Title and description for search engines."""

    title: SeoTitle | None = None
    description: SeoDescription | None = None


class NewFamily(RequestModel):
    """A new family.

    `label` is the text by which products refer to the family. The default is the name. The label
    never changes. Without a slug, the slug is derived from the label.
    """

    label: FamilyLabel | None = None
    slug: Slug | None = None
    name: FamilyName
    description: Description = ""
    category: Annotated[CategoryPath, Field(examples=["tea"])] | None = None
    images: Images = ()
    seo: Seo = Seo()
    metadata: dict[MetadataName, MetadataValue] = Field(
        default_factory=dict, max_length=MAX_METADATA_ENTRIES, examples=[{"season": "spring"}]
    )
    translations: dict[Language, Translation] = Field(
        default_factory=dict, max_length=MAX_LANGUAGES, examples=[{"de": {"name": "Sencha-Tee"}}]
    )
    status: FamilyStatus = FamilyStatus.ACTIVE


class FamilyChange(RequestModel):
    """A change of a family, as a JSON merge patch (RFC 7396).

    Absent fields stay unchanged, and null clears a field. Metadata is merged by name, translations
    by language, `seo` by field. A family without a name, description, category or images shows
    those of its products. `slug` and `status` cannot be null.
    """

    model_config = ConfigDict(json_schema_extra=remove_null_defaults)

    slug: Slug = omittable_field()
    name: FamilyName | None = None
    description: Description | None = None
    category: CategoryPath | None = None
    images: Images | None = None
    seo: Seo | None = None
    metadata: Annotated[
        dict[MetadataName, MetadataValue | None] | None, Field(max_length=MAX_METADATA_ENTRIES)
    ] = None
    translations: Annotated[
        dict[Language, Translation | None] | None, Field(max_length=MAX_LANGUAGES)
    ] = None
    status: FamilyStatus = omittable_field()


class SeoView(Dto):
    """Title and description for search engines. If one is null, the page's own texts apply."""

    title: str | None
    description: str | None


class OptionValuesView(Dto):
    """The distinct values of an option, in the order of the first product that has the value."""

    name: str
    values: tuple[str, ...]


class FamilyView(Dto):
    """A family: one page of a shop for products that differ by their options.

    `label` is the value of `family` in its products. A product without a family is a family of its
    own: `family_id` is its `product_id`, and `label` is null.

    `options` (at most 100 values each), `price_range`, `available` and `product_count` summarize
    all active products. `available` is the sum of their available units. `price_range` is in the
    most frequent currency of the products; it is null without active products. A family without a
    name, description, category or images shows those of its products.
    """

    family_id: UUID
    slug: str
    label: str | None
    name: str
    description: str
    category: str | None
    images: tuple[str, ...]
    options: tuple[OptionValuesView, ...]
    price_range: PriceRange | None
    available: int
    seo: SeoView
    product_count: int
    metadata: FrozenTexts
    translations: FrozenTranslations
    status: FamilyStatus
    version: int
    created_at: datetime
    updated_at: datetime


class FamilyDetail(FamilyView):
    """A family with its active products, the oldest first, at most 100.

    If `product_count` is greater, `GET /products?family=` lists the others.
    """

    products: tuple[ProductView, ...]


@dataclass(frozen=True)
class FamilyMoved:
    """The text of the request identifies the family, but is not its current slug."""

    slug: str


class FamilyNotFound(DomainError):
    """There is no such family, it is archived, or it has no active product. Details: family."""

    code = "inventory.family_not_found"
    status = 404
    title = "There is no such family"


class FamilyTaken(DomainError):
    """Another family has this label.

    The comparison ignores extra spaces, letter case and the Unicode normalization form. Details:
    label.
    """

    code = "inventory.family_taken"
    status = 409
    title = "A family with this label exists already"


class SlugTaken(DomainError):
    """Another family has or had this slug, or it is reserved for products. Details: slug."""

    code = "inventory.slug_taken"
    status = 409
    title = "Another family has or had this slug"


class Families(Protocol):
    """The public API of families.

    `family` in a command of a product is the label or slug of a family; an unknown text creates a
    family with this label. `slug` in the methods is a slug, former slug, label or id of a family,
    or the slug or id of a product without a family. Only callers with the scope catalogue:write get
    archived families, and families without an active product.
    """

    async def get_family(self, ctx: CallContext, slug: str) -> FamilyDetail:
        """Raises FamilyNotFound."""

    async def render_family(self, ctx: CallContext, slug: str) -> RenderedResponse | FamilyMoved:
        """Return the result of `get_family` as JSON, or FamilyMoved if `slug` is not the slug.

        The result comes from a cache. While the database is available, it is at most one second
        old. Callers with the scope catalogue:write get a fresh result. Raises FamilyNotFound.
        """

    async def create(
        self, ctx: CallContext, command: NewFamily, attempt: IdempotentCommand
    ) -> FamilyDetail:
        """Create a family. `attempt.id` becomes the family id.

        Raises FamilyTaken, SlugTaken, CategoryAmbiguous.
        """

    async def change(
        self,
        ctx: CallContext,
        slug: str,
        command: FamilyChange,
        expected_versions: ExpectedVersions,
    ) -> FamilyDetail:
        """Apply a merge patch. A former slug still identifies the family.

        Raises FamilyNotFound, PreconditionFailed, SlugTaken, CategoryAmbiguous, ValidationFailed.
        """

    async def archive(
        self, ctx: CallContext, slug: str, expected_versions: ExpectedVersions
    ) -> None:
        """Archive the family and its products. Raises FamilyNotFound, PreconditionFailed."""
