from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, VERSION_ERRORS
from markethall.shared.http.conditional_requests import (
    NOT_MODIFIED_RESPONSE,
    apply_if_none_match,
    if_match,
)
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response, versioned_response
from markethall.shared.http.route_policies import require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.model import Bool, Id, RequestModel
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery
from markethall.shared.kernel.scopes import ORDERS_MANAGE, PROFILE, USERS_MANAGE
from markethall.users.contract import ChangeUser, Role, UserNotFound, UserView
from markethall.users.contract.errors import LastAdmin
from markethall.users.router.dependencies import AccountsDep

router = APIRouter(tags=["users"])


class ChangeUserRequest(RequestModel):
    """A change of a user. Fields that are left out stay unchanged."""

    is_active: Bool | None = None
    roles: Annotated[
        tuple[Role, ...] | None,
        Field(min_length=1, max_length=len(Role), fail_fast=True, examples=[["staff"]]),
    ] = None


@router.get(
    "/users",
    response_model=Page[UserView],
    summary="List users",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_users(
    ctx: Annotated[CallContext, require_scope(USERS_MANAGE)],
    query: Annotated[PageQuery, from_query(PageQuery)],
    accounts: AccountsDep,
) -> Response:
    """Return users in the order of registration."""
    return json_response(await accounts.list_users(ctx, query.limit, query.cursor))


@router.get(
    "/users/{user_id}",
    response_model=UserView,
    summary="Get a user",
    responses=problems(*AUTHENTICATED_ERRORS, UserNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_user(
    request: Request,
    ctx: Annotated[CallContext, require_scope(USERS_MANAGE, ORDERS_MANAGE, PROFILE)],
    user_id: Id,
    accounts: AccountsDep,
) -> Response:
    """Return a user. Admins and staff of orders may read every user, others only themselves."""
    return apply_if_none_match(request, versioned_response(await accounts.get_user(ctx, user_id)))


@router.patch(
    "/users/{user_id}",
    response_model=UserView,
    summary="Change the roles or the activity of a user",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *VERSION_ERRORS,
        UserNotFound,
        LastAdmin,
    ),
)
async def change_user(
    ctx: Annotated[CallContext, require_scope(USERS_MANAGE)],
    user_id: Id,
    expected_versions: Annotated[ExpectedVersions, Depends(if_match)],
    body: ChangeUserRequest,
    accounts: AccountsDep,
) -> Response:
    """Change roles, disable or enable a user. Disabling ends all sessions of the user.

    An older access token may contain a staff scope that the new roles do not grant. Such a scope
    loses its effect within a minute. A scope that the new roles add is in the next access token.
    """
    change = ChangeUser(is_active=body.is_active, roles=body.roles)
    return versioned_response(await accounts.change_user(ctx, user_id, change, expected_versions))
