"""Relocation: moves the data of one context into another database."""

from markethall.relocation.relocate import relocate
from markethall.relocation.schema_copy import RelocationFailed

__all__ = ["RelocationFailed", "relocate"]
