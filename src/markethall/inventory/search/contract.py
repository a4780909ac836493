"""The contract of product lists: filters, full-text search and facets."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic_core import PydanticCustomError, PydanticKnownError
from typing_extensions import TypeAliasType

from markethall.inventory.catalogue.contract.families import FamilyView
from markethall.inventory.catalogue.contract.fields import (
    CategoryPath,
    Label,
    ProductStatus,
    Tag,
    frozen_as,
)
from markethall.inventory.catalogue.contract.products import (
    MAX_ATTRIBUTE_LENGTH,
    MAX_OPTION_LENGTH,
    ProductView,
    RenderedResponse,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import MAX_AMOUNT, OMITS_NULL, Dto, Text
from markethall.shared.kernel.pagination import Page, PageQuery

# a facet lists only its most frequent values; `options` and `attributes` list those of each name
MAX_FACET_VALUES: Final = 100
# the facets `options` and `attributes` list only the names whose counts have the highest sums
MAX_FACET_NAMES: Final = 20

# limits of the filters of one query; the gateway limits the number of all parameters
MAX_FILTER_NAMES: Final = 10
MAX_FILTER_VALUES: Final = 30


def _to_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _sort_values(values: Iterable[str]) -> tuple[str, ...]:
    # so that two queries with the same filters have the same cache key and accept the same cursor
    return tuple(sorted(set(values)))


def _require_label(value: str) -> str:
    if value.isspace():
        raise PydanticCustomError("blank", "must have a character other than spaces")
    return value


_AnyOf = (
    Field(max_length=MAX_FILTER_VALUES),
    AfterValidator(_sort_values),
    BeforeValidator(_to_tuple),
)
CategoryFilter = Annotated[tuple[CategoryPath, ...], *_AnyOf]
TagFilter = Annotated[tuple[Tag, ...], *_AnyOf]
FilterName = Annotated[
    Text, Field(min_length=1, max_length=MAX_OPTION_LENGTH), AfterValidator(_require_label)
]
FilterValue = Annotated[
    Text, Field(min_length=1, max_length=MAX_ATTRIBUTE_LENGTH), AfterValidator(_require_label)
]
# maps the name of an option or attribute to a list of values; a product must have one of them
LabelFilters = Annotated[
    Mapping[FilterName, Annotated[tuple[FilterValue, ...], *_AnyOf]],
    Field(max_length=MAX_FILTER_NAMES),
    AfterValidator(lambda filters: MappingProxyType(dict(sorted(filters.items())))),
    PlainSerializer(dict, return_type=dict[str, tuple[str, ...]]),
]

# the name of an option or attribute with a comma cannot be requested on its own
_FACET_NAME_PATTERN: Final = (
    r"(?:category|tag|options|attributes|(?:option|attribute)\.[^,\u0000]{1,255})"
)
MAX_REQUESTED_FACETS: Final = 20
_FACET_NAMES_PATTERN: Final = (
    f"^{_FACET_NAME_PATTERN}(?:,{_FACET_NAME_PATTERN}){{0,{MAX_REQUESTED_FACETS - 1}}}$"
)
_FACET_NAMES: Final = re.compile(_FACET_NAMES_PATTERN)


def _require_facet_names(value: str) -> str:
    # not as the `pattern` of the field, because the automaton of Pydantic expands the repetitions
    # of the pattern, which takes 7 MB
    if not _FACET_NAMES.fullmatch(value):
        raise PydanticKnownError("string_pattern_mismatch", {"pattern": _FACET_NAMES_PATTERN})
    return value


FacetNames = Annotated[
    Text,
    Field(
        max_length=2000,
        json_schema_extra={"pattern": _FACET_NAMES_PATTERN},
        examples=["category,options,tag,attribute.material"],
    ),
    AfterValidator(_require_facet_names),
]


ProductSort = TypeAliasType(
    "ProductSort", Literal["relevance", "name", "price", "-price", "-created_at"]
)


class ProductFilters(PageQuery):
    """Filters and sort of the product list and the family list. Prices are in minor units.

    A product must match all filters. For `category`, `tag`, and each option and attribute, it must
    have one of the given values. `category` also selects the products of all categories below it.
    The comparison of tags, and of names and values of options and attributes, ignores letter case
    and extra spaces; numbers and booleans are compared by their text, such as 12 or true.

    Each of the first ten words of `q` must be a prefix of a word in the name, SKU, tags or
    description; case and accents are ignored. The default sort is `relevance` with `q`, and
    `-created_at` without `q`. The price filters and sorts ignore additional prices.
    """

    category: CategoryFilter = ()
    tag: TagFilter = ()
    option: LabelFilters = Field(default_factory=dict, examples=[{"option.size": ["M"]}])
    attribute: LabelFilters = Field(
        default_factory=dict, examples=[{"attribute.material": ["wool"]}]
    )
    min_price: Annotated[int, Field(ge=0, le=MAX_AMOUNT)] | None = None
    max_price: Annotated[int, Field(ge=0, le=MAX_AMOUNT)] | None = None
    in_stock: bool | None = None
    q: Annotated[Text, Field(min_length=1, max_length=100, examples=["green tea"])] | None = None
    sort: ProductSort | None = None
    facets: FacetNames | None = None

    @property
    def effective_sort(self) -> str:
        """The sort to use.

        It is the default if `sort` is absent, or if `sort` is `relevance` and `q` is absent.
        """
        if self.sort in {None, "relevance"}:
            return "-created_at" if self.q is None else "relevance"
        return str(self.sort)

    @property
    def requested_facets(self) -> frozenset[str]:
        """The names in `facets`, such as category, options or option.size."""
        return frozenset(self.facets.split(",")) if self.facets else frozenset()


class ProductQuery(ProductFilters):
    """A query of the product list. `family` is the label or slug of a family."""

    family: Label | None = None
    status: ProductStatus = ProductStatus.ACTIVE


class FacetValue(Dto):
    """A value of a facet, and the number of matching products or families that have it."""

    value: str
    count: int


FrozenFacets = Annotated[
    Mapping[str, tuple[FacetValue, ...]], *frozen_as(dict[str, tuple[FacetValue, ...]])
]


class Facets(Dto):
    """Counts over all matches, not only those of the page: products, or families in their list.

    A count ignores the filter of its own facet: with the filter `option.size=M`, the other sizes
    are counted too. So each count is the length of the list if this value is the only filter of its
    facet, and all other filters are kept. A category is counted with the categories below it.

    The most frequent values come first, at most 100 per facet, and per name of an option or
    attribute. `options` and `attributes` have at most the 20 names whose counts have the highest
    sums, and the names of filters and of facets such as `option.size`. A facet that was not
    requested is left out.
    """

    model_config = ConfigDict(json_schema_extra={OMITS_NULL: True})

    category: tuple[FacetValue, ...] | None = None
    options: FrozenFacets | None = None
    tag: tuple[FacetValue, ...] | None = None
    attributes: FrozenFacets | None = None


class ProductPage(Page[ProductView]):
    """A page of products. `facets` is null unless requested."""

    facets: Facets | None = None


class FamilyQuery(ProductFilters):
    """A query of the family list.

    A family matches if one of its active products matches all filters. It has the position of its
    first matching product in the product list. With `sort=price`, this is the position of its
    lowest matching price.
    """

    def to_product_query(self) -> ProductQuery:
        return ProductQuery(**dict(self))


class FamilyPage(Page[FamilyView]):
    """A page of families. `facets` is null unless requested.

    A facet counts a family once for each value that one of its matching products has.
    """

    facets: Facets | None = None


class FamilySearch(Protocol):
    async def list_families(self, ctx: CallContext, query: FamilyQuery) -> FamilyPage:
        """Return a page of the active families that have an active product.

        A product without a family is a family of its own. Raises CursorInvalid.
        """

    async def render_family_page(self, ctx: CallContext, query: FamilyQuery) -> RenderedResponse:
        """Return the result of `list_families` as JSON. Raises CursorInvalid.

        The page comes from a cache. While the database is available, it is at most one second old;
        with facets, at most ten seconds.
        """


class ProductSearch(Protocol):
    async def list_products(self, ctx: CallContext, query: ProductQuery) -> ProductPage:
        """Return a page of products. Raises CursorInvalid.

        Raises Unauthenticated or Forbidden if `query.status` is not active and the caller does not
        have the scope catalogue:write. Raises Unavailable if the previous page came from an
        external search engine and the engine cannot answer now.
        """

    async def render_product_page(self, ctx: CallContext, query: ProductQuery) -> RenderedResponse:
        """Return the result of `list_products` as JSON. Raises the same errors.

        A page of active products comes from a cache. While the database is available, the page is
        at most one second old; with facets, at most ten seconds.
        """
