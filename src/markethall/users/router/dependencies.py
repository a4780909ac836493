from typing import Annotated, Final, Protocol

from fastapi import Depends

from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import IdempotencyRunner, idempotency_runner
from markethall.users.contract import Accounts, Guests, Sessions


class Services(Protocol):
    """The services that these routes call."""

    def accounts(self) -> Accounts: ...

    def guests(self) -> Guests: ...

    def sessions(self) -> Sessions: ...


_from_users: Final[FromContext[Services]] = FromContext("users")
AccountsDep = Annotated[Accounts, Depends(_from_users(lambda container: container.accounts()))]
GuestsDep = Annotated[Guests, Depends(_from_users(lambda container: container.guests()))]
SessionsDep = Annotated[Sessions, Depends(_from_users(lambda container: container.sessions()))]
IdempotencyDep = Annotated[IdempotencyRunner, Depends(idempotency_runner("users"))]
