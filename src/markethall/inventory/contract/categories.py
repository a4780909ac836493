"""What inventory's own router serves of categories: the tree that products are found in."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Protocol
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, PlainSerializer

from markethall.inventory.contract.catalogue import Rendered
from markethall.inventory.contract.kinds import (
    MAX_LANGUAGES,
    Label,
    Language,
    absent,
    without_defaults,
)
from markethall.shared.call import Call
from markethall.shared.errors import Refusal
from markethall.shared.idempotency import Attempt
from markethall.shared.model import Body, Dto, Int, Text
from markethall.shared.pages import Page, PageQuery
from markethall.shared.versions import Seen

Key = Annotated[Label, Field(examples=["green-tea"])]
CategoryName = Annotated[Label, Field(examples=["Green tea"])]
Parent = Annotated[Label, Field(examples=["tea"])]
MAX_POSITION: Final = 1_000_000
Position = Annotated[Int, Field(ge=0, le=MAX_POSITION)]


class CategoryTranslation(Body):
    """What a language calls it."""

    name: CategoryName


class NewCategory(Body):
    """A place under its parent, or at the root level. `category` is what products name."""

    category: Key
    name: CategoryName | None = Field(default=None, description="Without one: the category.")
    parent: Parent | None = None
    position: Position = 0
    translations: dict[Language, CategoryTranslation] = Field(
        default_factory=dict, max_length=MAX_LANGUAGES, examples=[{"de": {"name": "Grüner Tee"}}]
    )


class CategoryChange(Body):
    """JSON merge patch (RFC 7396): what is absent stays. Without a parent it is at the root level.

    Translations are merged language by language. Name and position cannot be cleared.
    """

    model_config = ConfigDict(json_schema_extra=without_defaults)

    name: CategoryName = absent()
    parent: Parent | None = None
    position: Position = absent()
    translations: Annotated[
        dict[Language, CategoryTranslation | None] | None, Field(max_length=MAX_LANGUAGES)
    ] = None


class CategoryQuery(PageQuery):
    """`parent`: only what stands directly under it; empty: what stands at the root level."""

    parent: Annotated[Text, Field(max_length=100, examples=["tea"])] | None = None


class CategoryNames(Dto):
    name: str


FrozenNames = Annotated[
    Mapping[str, CategoryNames],
    AfterValidator(lambda names: MappingProxyType(dict(names))),
    PlainSerializer(dict, return_type=dict[str, CategoryNames]),
]


class Category(Dto):
    """`product_count` is how many active products it and all that is below it have."""

    category_id: UUID
    category: str
    name: str
    parent: str | None
    position: int
    translations: FrozenNames
    product_count: int
    version: int


class CategoryNotFound(Refusal):
    """Details: category_id, or the category that was named as the parent."""

    code = "inventory.category_not_found"
    status = 404
    title = "There is no such category"


class CategoryTaken(Refusal):
    """Details: category."""

    code = "inventory.category_taken"
    status = 409
    title = "There is such a category already"


class CategoryInUse(Refusal):
    """Products are in it, be they archived, or categories are below it. Details: category."""

    code = "inventory.category_in_use"
    status = 409
    title = "The category has products or categories"


class CategoryCycle(Refusal):
    """The parent is the category itself, or below it. Details: category, parent."""

    code = "inventory.category_cycle"
    status = 409
    title = "A category cannot be below itself"


class Categories(Protocol):
    """The tree. A category that a product is first to name stands at the root level."""

    async def categories(self, call: Call, query: CategoryQuery) -> Page[Category]:
        """In the order of their positions, then of their keys. Raises CursorInvalid."""

    async def categories_body(self, call: Call, query: CategoryQuery) -> Rendered:
        """`categories`, as JSON; some seconds old. Raises CursorInvalid."""

    async def category(self, call: Call, category_id: UUID) -> Category:
        """Raises CategoryNotFound."""

    async def category_body(self, call: Call, category_id: UUID) -> Rendered:
        """`category`, as JSON; for the public some seconds old. Raises CategoryNotFound."""

    async def create(self, call: Call, command: NewCategory, attempt: Attempt) -> Category:
        """A new category whose id is the attempt's; once per id.

        Raises CategoryTaken, CategoryNotFound (for the parent), CategoryCycle.
        """

    async def change(
        self, call: Call, category_id: UUID, command: CategoryChange, seen: Seen
    ) -> Category:
        """Raises CategoryNotFound, PreconditionFailed, CategoryCycle, Invalid."""

    async def remove(self, call: Call, category_id: UUID, seen: Seen) -> None:
        """Raises CategoryNotFound, PreconditionFailed, CategoryInUse."""
