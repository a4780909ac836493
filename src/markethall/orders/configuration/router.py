"""FastAPI dependencies of configuration items."""

from typing import Annotated

from fastapi import Depends

from markethall.shared.http.conditional_requests import if_match
from markethall.shared.http.idempotent_routes import IdempotencyRunner, idempotency_runner
from markethall.shared.http.route_policies import public, require_scope
from markethall.shared.kernel import etags
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.scopes import ORDERS_MANAGE

IdempotencyDep = Annotated[IdempotencyRunner, Depends(idempotency_runner("orders"))]
ExpectedVersionsDep = Annotated[etags.ExpectedVersions, Depends(if_match)]
Anyone = Annotated[CallContext, public()]
Staff = Annotated[CallContext, require_scope(ORDERS_MANAGE)]
