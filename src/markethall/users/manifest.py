from typing import TYPE_CHECKING, Final

from markethall.shared.composition.manifest import ContextManifest, built_in_migrations
from markethall.users.settings import UsersSettings

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from markethall.shared.composition.parts import ContextParts
    from markethall.users.container import UsersContainer


def _load_parts() -> "ContextParts[UsersContainer]":
    from markethall.shared.composition.parts import ContextParts, InternalApi
    from markethall.users.container import UsersContainer
    from markethall.users.contract import Users
    from markethall.users.remote import GuardedUsers, RemoteUsers, routes
    from markethall.users.router import router

    internal_api: InternalApi[UsersContainer, Users] = InternalApi(
        routes=routes,
        local=lambda container: container.users(),
        remote=RemoteUsers,
        guarded=GuardedUsers,
    )
    return ContextParts(UsersContainer, router, internal_api)


def _load_metadata() -> "MetaData":
    from markethall.users.sql.tables import metadata

    return metadata


MANIFEST: Final = ContextManifest(
    name="users",
    path_prefixes=(
        "users",
        "guests",
        "token",
        ".well-known",
    ),
    tags={
        "users": "Accounts, roles, sign-in, and the public keys of access tokens.",
    },
    migrations=built_in_migrations("users"),
    settings=UsersSettings,
    load_parts=_load_parts,
    load_metadata=_load_metadata,
    counters=("user_count", "guest_count"),
    form_paths=frozenset({"/token", "/token/revoke"}),
    issues_access_tokens=True,
)
