"""Authorization and request models of internal endpoints."""

from typing import Any, Final

import structlog
from fastapi import Depends, Request
from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

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
