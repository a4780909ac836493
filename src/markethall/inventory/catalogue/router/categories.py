from typing import Annotated

from fastapi import APIRouter, Request, Response

from markethall.inventory.catalogue.contract.categories import (
    CategoryAmbiguous,
    CategoryChange,
    CategoryCycle,
    CategoryInUse,
    CategoryNotFound,
    CategoryQuery,
    CategoryTaken,
    CategoryView,
    NewCategory,
)
from markethall.inventory.catalogue.router.dependencies import (
    CHANGE_ERRORS,
    CREATE_ERRORS,
    DELETE_ERRORS,
    LANGUAGE_PARAMETERS,
    Anyone,
    CatalogueWriter,
    CategoriesDep,
    ExpectedVersionsDep,
    IdempotencyDep,
    RequestedLanguage,
    ResourceLanguage,
    send_rendered,
)
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import versioned_response
from markethall.shared.kernel.errors import Unavailable, ValidationFailed
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page

router = APIRouter(tags=["inventory"])


@router.get(
    "/categories",
    response_model=Page[CategoryView],
    summary="Categories",
    responses=problems(ValidationFailed, CursorInvalid, CategoryAmbiguous, Unavailable)
    | NOT_MODIFIED_RESPONSE,
)
async def list_categories(
    request: Request,
    ctx: Anyone,
    query: Annotated[CategoryQuery, from_query(CategoryQuery, LANGUAGE_PARAMETERS)],
    tree: CategoriesDep,
    lang: RequestedLanguage,
) -> Response:
    """Return categories, sorted by position and key.

    `product_count` includes the products of all categories below the category.
    """
    return send_rendered(request, await tree.render_categories(ctx, query), lang)


@router.get(
    "/categories/{category_id}",
    response_model=CategoryView,
    summary="A category",
    responses=problems(CategoryNotFound, ValidationFailed, Unavailable) | NOT_MODIFIED_RESPONSE,
)
async def get_category(
    request: Request, ctx: Anyone, category_id: Id, tree: CategoriesDep, lang: ResourceLanguage
) -> Response:
    """Return a category."""
    return send_rendered(request, await tree.render_category(ctx, category_id), lang)


@router.post(
    "/categories",
    status_code=201,
    response_model=CategoryView,
    summary="Add a category",
    responses=problems(
        *CREATE_ERRORS, CategoryTaken, CategoryNotFound, CategoryCycle, CategoryAmbiguous
    ),
)
async def create_category(
    ctx: CatalogueWriter, body: NewCategory, tree: CategoriesDep, idempotency: IdempotencyDep
) -> Response:
    """Create a category.

    A new product with an unknown category path also creates the categories of this path.
    """
    return await idempotency.run(
        ctx,
        body,
        lambda attempt: tree.create(ctx, body, attempt),
        created_response(lambda made: f"/categories/{made.category_id}"),
    )


@router.patch(
    "/categories/{category_id}",
    response_model=CategoryView,
    summary="Change or move a category",
    responses=problems(
        *CHANGE_ERRORS, CategoryNotFound, CategoryCycle, CategoryTaken, CategoryAmbiguous
    ),
)
async def change_category(
    ctx: CatalogueWriter,
    category_id: Id,
    expected_versions: ExpectedVersionsDep,
    body: CategoryChange,
    tree: CategoriesDep,
) -> Response:
    """Change a category by a JSON merge patch (RFC 7396). The categories below move with it."""
    changed = await tree.change(ctx, category_id, body, expected_versions)
    return versioned_response(changed)


@router.delete(
    "/categories/{category_id}",
    status_code=204,
    response_class=Response,
    summary="Remove a category",
    responses=problems(*DELETE_ERRORS, CategoryNotFound, CategoryInUse),
)
async def delete_category(
    ctx: CatalogueWriter,
    category_id: Id,
    expected_versions: ExpectedVersionsDep,
    tree: CategoriesDep,
) -> Response:
    """Delete a category that has no children and no products, not even archived ones."""
    await tree.remove(ctx, category_id, expected_versions)
    return Response(status_code=204)
