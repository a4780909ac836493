"""The promise of users over HTTP: the serving half, then the calling half."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from markethall.shared.call import Call
from markethall.shared.http import from_container, problems, ready
from markethall.shared.model import Dto
from markethall.shared.serving import STRICT, service
from markethall.shared.wire import Wire
from markethall.users.contract import Customer, UserInactive, UserNotFound, Users

router = APIRouter(prefix="/internal/users", tags=["internal"])

UsersDep = Annotated[Users, Depends(from_container("users"))]


class Whom(Dto):
    user_id: UUID


@router.post("/active", response_model=Customer, responses=problems(UserNotFound, UserInactive))
async def active(
    call: Annotated[Call, service("users.active")],
    whom: Annotated[Whom, STRICT],
    users: UsersDep,
) -> Response:
    return ready(await users.active(call, whom.user_id))


class RemoteUsers:
    """Users, in another deployment."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def active(self, call: Call, user_id: UUID) -> Customer:
        return await self._wire.ask(call, "active", Whom(user_id=user_id), Customer)
