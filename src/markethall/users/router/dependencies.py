from typing import Annotated, Any, Final

from fastapi import Depends

from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import IdempotencyRunner, idempotency_runner
from markethall.users.contract import Accounts, Guests, Sessions

_from_users: Final[FromContext[Any]] = FromContext("users")
AccountsDep = Annotated[Accounts, Depends(_from_users(lambda container: container.accounts()))]
GuestsDep = Annotated[Guests, Depends(_from_users(lambda container: container.guests()))]
SessionsDep = Annotated[Sessions, Depends(_from_users(lambda container: container.sessions()))]
IdempotencyDep = Annotated[IdempotencyRunner, Depends(idempotency_runner("users"))]
