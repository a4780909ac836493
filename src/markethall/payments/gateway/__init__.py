"""Clients of the card providers."""

from markethall.payments.gateway.sandbox import SandboxGateway
from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks

__all__ = ["SandboxGateway", "SandboxWebhooks"]
