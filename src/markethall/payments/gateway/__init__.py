"""Gateways: the clients of the built-in payment providers."""

from markethall.payments.gateway.sandbox import SandboxGateway
from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks

__all__ = ["SandboxGateway", "SandboxWebhooks"]
