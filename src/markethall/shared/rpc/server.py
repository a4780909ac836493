"""Internal endpoints: their routes, authorization and request models."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Annotated, Any, Final, get_type_hints

import structlog
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import json_response
from markethall.shared.http.route_policies import RoutePolicy
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError, Forbidden, Unauthenticated
from markethall.shared.kernel.model import limited_error
from markethall.shared.rpc.client_interceptor import AllowList
from markethall.shared.security.service_tokens import ServiceIdentity

log = structlog.get_logger("markethall.security")


class ServiceRoutePolicy(RoutePolicy):
    """Requires a service token for one method; the caller must be on the allow-list."""

    def __init__(self, scope: str) -> None:
        super().__init__(scope)
        self.target, _, self.method = scope.partition(".")

    async def __call__(self, request: Request) -> CallContext:
        """Raises Unauthenticated and Forbidden, and Unavailable if the keys cannot be fetched."""
        identity = self._get_identity(request)
        ctx: CallContext = request.scope["state"]["get_call_context"]()
        try:
            self._check_identity(identity, request.app.state.allow_list)
        except (Unauthenticated, Forbidden) as error:
            log.warning(
                "security.token_rejected",
                **ctx.security_fields,
                kind="service",
                reason="scope",
                defect=type(error).__name__,
                caller=identity.caller,
            )
            raise
        return ctx

    def _check_identity(self, identity: ServiceIdentity, allow_list: AllowList) -> None:
        if identity.target != self.target or identity.scope != self.scope:
            # the token was issued for another method
            raise Unauthenticated(reason="invalid")
        allow_list.check(identity.caller, self.target, self.method)

    def _get_identity(self, request: Request) -> ServiceIdentity:
        state = request.scope["state"]
        authentication_error: DomainError | None = state.get("authentication_error")
        if authentication_error:
            raise authentication_error
        identity: ServiceIdentity | None = state.get("service_identity")
        if identity is None:
            raise Unauthenticated(reason="missing")
        return identity


def require_service_token(scope: str) -> Any:
    """Policy: the request must have a service token with the scope `target.method`."""
    return Depends(ServiceRoutePolicy(scope))


class _ForbidUnknownFields:
    """Rejects unknown fields at any depth, because ignoring a field of a newer caller is unsafe."""

    def __get_pydantic_core_schema__(
        self, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def read(value: Any, _: Any) -> BaseModel:
            try:
                return source.model_validate(value, extra="forbid")
            except ValidationError as error:
                raise limited_error(error) from None

        return core_schema.no_info_wrap_validator_function(read, handler(source))


FORBID_UNKNOWN_FIELDS: Final = _ForbidUnknownFields()


class InternalRoutes:
    """The routes `POST /internal/<context>/<method>` for the methods of a contract.

    They are built when `router` is first read, because most processes do not serve them.
    """

    def __init__(self, context: str, select: Callable[[Any], Any]) -> None:
        """`select` returns the implementation of the contract in the container of the context."""
        self._add_routes: list[Callable[[APIRouter], None]] = []
        self._context = context
        self._contract = Depends(FromContext[Any](context)(select))

    def add(
        self,
        method: Callable[..., Any],
        *errors: type[DomainError],
        reference: type[BaseModel] | None = None,
        openapi_extra: dict[str, Any] | None = None,
    ) -> None:
        """Add the route of a method, such as `Inventory.reserve`, which raises these errors.

        The annotations of the method give the types of the request and the response. A method whose
        argument is an id needs a `reference`: the model of the request, with the id as its field.
        """
        self._add_routes.append(partial(self._add_route, method, errors, reference, openapi_extra))

    @cached_property
    def router(self) -> APIRouter:
        router = APIRouter(prefix=f"/internal/{self._context}", tags=["internal"])
        for add_route in self._add_routes:
            add_route(router)
        return router

    def _add_route(
        self,
        method: Callable[..., Any],
        errors: tuple[type[DomainError], ...],
        reference: type[BaseModel] | None,
        openapi_extra: dict[str, Any] | None,
        router: APIRouter,
    ) -> None:
        name, hints = method.__name__, get_type_hints(method)
        result_type, command_type = hints["return"], reference or list(hints.values())[1]

        async def handle(
            ctx: Annotated[CallContext, require_service_token(f"{self._context}.{name}")],
            command: Annotated[command_type, FORBID_UNKNOWN_FIELDS],  # type: ignore[valid-type] # FastAPI reads it
            contract: Annotated[Any, self._contract],
        ) -> Response:
            arguments = vars(command).values() if reference else [command]
            result = await getattr(contract, name)(ctx, *arguments)
            return Response(status_code=204) if result is None else json_response(result)

        has_result = result_type is not type(None)
        router.add_api_route(
            f"/{name}",
            handle,
            methods=["POST"],
            name=name,
            status_code=200 if has_result else 204,
            response_model=result_type if has_result else None,
            responses=problems(*errors),
            openapi_extra=openapi_extra,
        )
