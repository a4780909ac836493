"""The contract `Users` over HTTP: server routes, then the client."""

from typing import Annotated, Final, Protocol
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard
from markethall.shared.rpc.server import FORBID_UNKNOWN_FIELDS, require_service_token
from markethall.users.contract import (
    Customer,
    IssueOrderToken,
    OrderToken,
    UserInactive,
    UserNotFound,
    Users,
)

router = APIRouter(prefix="/internal/users", tags=["internal"])


class ProvidesUsers(Protocol):
    def users(self) -> Users: ...


_from_users: Final[FromContext[ProvidesUsers]] = FromContext("users")
UsersDep = Annotated[Users, Depends(_from_users(lambda container: container.users()))]


class UserRef(Dto):
    user_id: UUID


@router.post(
    "/get_active_customer", response_model=Customer, responses=problems(UserNotFound, UserInactive)
)
async def get_active_customer(
    ctx: Annotated[CallContext, require_service_token("users.get_active_customer")],
    user: Annotated[UserRef, FORBID_UNKNOWN_FIELDS],
    users: UsersDep,
) -> Response:
    return json_response(await users.get_active_customer(ctx, user.user_id))


@router.post("/issue_order_token", response_model=OrderToken, responses=problems(UserInactive))
async def issue_order_token(
    ctx: Annotated[CallContext, require_service_token("users.issue_order_token")],
    command: Annotated[IssueOrderToken, FORBID_UNKNOWN_FIELDS],
    users: UsersDep,
) -> Response:
    return json_response(await users.issue_order_token(ctx, command))


class RemoteUsers:
    """Client of users in another deployment."""

    def __init__(self, rpc_client: RpcClient) -> None:
        self._rpc_client = rpc_client

    async def get_active_customer(self, ctx: CallContext, user_id: UUID) -> Customer:
        return await self._rpc_client.call(
            ctx, "get_active_customer", UserRef(user_id=user_id), Customer
        )

    async def issue_order_token(self, ctx: CallContext, command: IssueOrderToken) -> OrderToken:
        return await self._rpc_client.call(ctx, "issue_order_token", command, OrderToken)


class GuardedUsers:
    """`Users` behind a call guard, which makes the same checks for local and remote calls."""

    def __init__(self, users: Users, guard: CallGuard) -> None:
        self._users = users
        self._guard = guard

    async def get_active_customer(self, ctx: CallContext, user_id: UUID) -> Customer:
        return await self._guard.invoke(
            ctx, "get_active_customer", lambda ctx: self._users.get_active_customer(ctx, user_id)
        )

    async def issue_order_token(self, ctx: CallContext, command: IssueOrderToken) -> OrderToken:
        return await self._guard.invoke(
            ctx, "issue_order_token", lambda ctx: self._users.issue_order_token(ctx, command)
        )
