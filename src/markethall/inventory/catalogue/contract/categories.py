"""The category tree: the service that the routers call, its DTOs and errors."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Protocol
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, PlainSerializer

from markethall.inventory.catalogue.contract.fields import (
    MAX_CATEGORY_LENGTH,
    MAX_LANGUAGES,
    CategoryPath,
    Label,
    Language,
    omittable_field,
    remove_null_defaults,
)
from markethall.inventory.catalogue.contract.products import RenderedResponse
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.model import Dto, Int, RequestModel, Text
from markethall.shared.kernel.pagination import Page, PageQuery

CategoryKey = Annotated[CategoryPath, Field(examples=["green-tea"])]
CategoryName = Annotated[Label, Field(examples=["Green tea"])]
ParentCategoryKey = Annotated[CategoryPath, Field(examples=["tea"])]
MAX_POSITION: Final = 1_000_000
Position = Annotated[Int, Field(ge=0, le=MAX_POSITION)]


class CategoryTranslation(RequestModel):
    """The name of a category in one language."""

    name: CategoryName


class NewCategory(RequestModel):
    """A new category. Without `parent` it is at the root. Products refer to the key `category`.

    The key never changes. If a category below another parent has it, the key of the new one is its
    path, such as "Apparel > Accessories". A path as `category` names the parent too.
    """

    category: CategoryKey
    name: CategoryName | None = Field(default=None, description="Without one: the category.")
    parent: ParentCategoryKey | None = None
    position: Position = 0
    translations: dict[Language, CategoryTranslation] = Field(
        default_factory=dict, max_length=MAX_LANGUAGES, examples=[{"de": {"name": "Grüner Tee"}}]
    )


class CategoryChange(RequestModel):
    """A change of a category, as a JSON merge patch (RFC 7396): absent fields stay unchanged.

    A `parent` of null moves the category to the root. Translations are merged by language. Name
    and position cannot be null.
    """

    model_config = ConfigDict(json_schema_extra=remove_null_defaults)

    name: CategoryName = omittable_field()
    parent: ParentCategoryKey | None = None
    position: Position = omittable_field()
    translations: Annotated[
        dict[Language, CategoryTranslation | None] | None, Field(max_length=MAX_LANGUAGES)
    ] = None


class CategoryQuery(PageQuery):
    """Filter of the category list. `parent` selects its children; an empty text the root level."""

    parent: Annotated[Text, Field(max_length=MAX_CATEGORY_LENGTH, examples=["tea"])] | None = None


class CategoryTranslationView(Dto):
    name: str


FrozenCategoryTranslations = Annotated[
    Mapping[str, CategoryTranslationView],
    AfterValidator(lambda names: MappingProxyType(dict(names))),
    PlainSerializer(dict, return_type=dict[str, CategoryTranslationView]),
]


class CategoryView(Dto):
    """A category. `product_count` includes the active products of all categories below it."""

    category_id: UUID
    category: str
    name: str
    parent: str | None
    position: int
    translations: FrozenCategoryTranslations
    product_count: int
    version: int


class CategoryNotFound(DomainError):
    """The category or its parent does not exist. Details: category_id, or category (parent key)."""

    code = "inventory.category_not_found"
    status = 404
    title = "There is no such category"


class CategoryTaken(DomainError):
    """A category has this key, or the same parent and name. Details: category.

    Spaces, letter case and the form of Unicode make no difference.
    """

    code = "inventory.category_taken"
    status = 409
    title = "There is such a category already"


class CategoryAmbiguous(DomainError):
    """Several categories have this name; their paths tell them apart. Details: category, paths."""

    code = "inventory.category_ambiguous"
    status = 422
    title = "Several categories have this name"


class CategoryInUse(DomainError):
    """The category has children or products, perhaps archived ones. Details: category."""

    code = "inventory.category_in_use"
    status = 409
    title = "The category has products or categories"


class CategoryCycle(DomainError):
    """The new parent is the category itself or below it. Details: category, parent."""

    code = "inventory.category_cycle"
    status = 409
    title = "A category cannot be below itself"


class Categories(Protocol):
    """The category tree. A product with an unknown path creates the categories of the path.

    A text names the category whose key it is, else the one whose path it is, else, if it has no
    separator, the only one that has this name. Spaces, letter case and the form of Unicode make no
    difference.
    """

    async def list_categories(self, ctx: CallContext, query: CategoryQuery) -> Page[CategoryView]:
        """Return categories, sorted by position and key.

        Raises CursorInvalid, CategoryAmbiguous (the parent).
        """

    async def render_categories(self, ctx: CallContext, query: CategoryQuery) -> RenderedResponse:
        """Return `list_categories` as JSON. It comes from a cache and may be a few seconds old.

        Raises CursorInvalid.
        """

    async def get_category(self, ctx: CallContext, category_id: UUID) -> CategoryView:
        """Raises CategoryNotFound."""

    async def render_category(self, ctx: CallContext, category_id: UUID) -> RenderedResponse:
        """Return `get_category` as JSON. For the public it may be a few seconds old.

        Raises CategoryNotFound.
        """

    async def create(
        self, ctx: CallContext, command: NewCategory, attempt: IdempotentCommand
    ) -> CategoryView:
        """Create a category. The attempt's id is the category id.

        Raises CategoryTaken, CategoryNotFound (the parent does not exist), CategoryCycle,
        CategoryAmbiguous (the parent), ValidationFailed (the path is not below the parent).
        """

    async def change(
        self,
        ctx: CallContext,
        category_id: UUID,
        command: CategoryChange,
        expected_versions: ExpectedVersions,
    ) -> CategoryView:
        """Raises CategoryNotFound, PreconditionFailed, CategoryCycle, CategoryTaken,
        CategoryAmbiguous, ValidationFailed.
        """

    async def remove(
        self, ctx: CallContext, category_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        """Raises CategoryNotFound, PreconditionFailed, CategoryInUse."""
