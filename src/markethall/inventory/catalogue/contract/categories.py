from collections.abc import Mapping
from typing import Annotated, Final, Protocol
from uuid import UUID

from pydantic import ConfigDict, Field

from markethall.inventory.catalogue.contract.fields import (
    MAX_CATEGORY_LENGTH,
    MAX_LANGUAGES,
    CategoryPath,
    Label,
    Language,
    frozen_as,
)
from markethall.inventory.catalogue.contract.products import RenderedResponse
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.merge_patch import omittable_field, remove_null_defaults
from markethall.shared.kernel.model import Dto, Int, RequestModel, Text
from markethall.shared.kernel.pagination import Page, PageQuery

CategoryKey = Annotated[CategoryPath, Field(examples=["green-tea"])]
CategoryName = Annotated[Label, Field(examples=["Green tea"])]
ParentCategoryKey = Annotated[CategoryPath, Field(examples=["tea"])]
MAX_POSITION: Final = 1_000_000
# the largest number of paths in the details of CategoryAmbiguous; each path needs a query
MAX_AMBIGUOUS_PATHS: Final = 20
Position = Annotated[Int, Field(ge=0, le=MAX_POSITION)]


class CategoryTranslation(RequestModel):
    """The name of a category in one language."""

    name: CategoryName


class NewCategory(RequestModel):
    """A new category.

    `category` is the key by which products refer to the category. It never changes. If another
    category already has this key, the key of the new category is its path, such as
    "Apparel > Accessories". If `category` is a path, the path names the parent. Otherwise `parent`
    names it; without `parent`, the category is at the root of the tree.
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
    """Filter of the category list.

    If `parent` names a category, only the children of this category are listed. If `parent` is an
    empty text, only the categories at the root are listed; if it is absent, all categories.
    """

    parent: Annotated[Text, Field(max_length=MAX_CATEGORY_LENGTH, examples=["tea"])] | None = None


class CategoryTranslationView(Dto):
    name: str


FrozenCategoryTranslations = Annotated[
    Mapping[str, CategoryTranslationView], *frozen_as(dict[str, CategoryTranslationView])
]


class CategoryView(Dto):
    """A category. `product_count` counts its active products and those of all categories below."""

    category_id: UUID
    category: str
    name: str
    parent: str | None
    position: int
    translations: FrozenCategoryTranslations
    product_count: int
    version: int


class CategoryNotFound(DomainError):
    """The category, or the parent that the request names, does not exist.

    Details: category_id. If the parent is missing instead: category (its text in the request).
    """

    code = "inventory.category_not_found"
    status = 404
    title = "There is no such category"


class CategoryTaken(DomainError):
    """Another category has this key, or another child of the parent has this name.

    The comparison ignores extra spaces, letter case and the Unicode normalization form. Details:
    category.
    """

    code = "inventory.category_taken"
    status = 409
    title = "A category with this key or name exists already"


class CategoryAmbiguous(DomainError):
    """Several categories have this name, so the request must give a path instead.

    Details: category (the name), paths (of at most twenty categories that have it).
    """

    code = "inventory.category_ambiguous"
    status = 422
    title = "Several categories have this name"


class CategoryInUse(DomainError):
    """The category has children or products. Archived products also count. Details: category."""

    code = "inventory.category_in_use"
    status = 409
    title = "The category has products or categories"


class CategoryCycle(DomainError):
    """The new parent is the category itself or below it. Details: category, parent."""

    code = "inventory.category_cycle"
    status = 409
    title = "A category cannot be below itself"


class Categories(Protocol):
    """The category tree. A new product with an unknown path creates the categories of the path.

    A request names a category by a text. The text is looked up as a key, then as a path. If it has
    no separator ">", it is last looked up as a name, which only one category may have. The
    comparison ignores extra spaces, letter case and the Unicode normalization form.
    """

    async def list_categories(self, ctx: CallContext, query: CategoryQuery) -> Page[CategoryView]:
        """Return categories, sorted by position and key.

        Raises CursorInvalid, CategoryAmbiguous (several categories have the name of the parent).
        """

    async def render_categories(self, ctx: CallContext, query: CategoryQuery) -> RenderedResponse:
        """Return the result of `list_categories` as JSON. Raises the same errors.

        The result comes from a cache and may be a few seconds old.
        """

    async def get_category(self, ctx: CallContext, category_id: UUID) -> CategoryView:
        """Raises CategoryNotFound."""

    async def render_category(self, ctx: CallContext, category_id: UUID) -> RenderedResponse:
        """Return the result of `get_category` as JSON. Raises CategoryNotFound.

        The result comes from a cache and may be a few seconds old. Callers with the scope
        catalogue:write get a fresh result.
        """

    async def create(
        self, ctx: CallContext, command: NewCategory, attempt: IdempotentCommand
    ) -> CategoryView:
        """Create a category. `attempt.id` becomes the category id.

        Raises CategoryTaken, CategoryNotFound (the parent does not exist), CategoryCycle,
        CategoryAmbiguous (several categories have the name of the parent), ValidationFailed (the
        path is not below the parent).
        """

    async def change(
        self,
        ctx: CallContext,
        category_id: UUID,
        command: CategoryChange,
        expected_versions: ExpectedVersions,
    ) -> CategoryView:
        """Apply a merge patch.

        Raises CategoryNotFound, PreconditionFailed, CategoryCycle, CategoryTaken,
        CategoryAmbiguous, ValidationFailed.
        """

    async def remove(
        self, ctx: CallContext, category_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        """Raises CategoryNotFound, PreconditionFailed, CategoryInUse."""
