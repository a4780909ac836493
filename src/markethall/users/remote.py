"""The contract `Users` over HTTP: server routes, client, and wrapper with the call guard."""

from uuid import UUID

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard
from markethall.shared.rpc.server import InternalRoutes
from markethall.users.contract import (
    Customer,
    IssueOrderToken,
    OrderToken,
    UserInactive,
    UserNotFound,
    Users,
)


class UserRef(Dto):
    user_id: UUID


routes = InternalRoutes("users", lambda container: container.users())
routes.add(Users.get_active_customer, UserNotFound, UserInactive, reference=UserRef)
routes.add(Users.issue_order_token, UserInactive)


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
            ctx, "get_active_customer", self._users.get_active_customer, user_id
        )

    async def issue_order_token(self, ctx: CallContext, command: IssueOrderToken) -> OrderToken:
        return await self._guard.invoke(
            ctx, "issue_order_token", self._users.issue_order_token, command
        )
