"""Relocation: moves the data of one context into another database."""

from markethall.relocation.database_urls import RelocationFailed
from markethall.relocation.relocate import relocate

__all__ = ["RelocationFailed", "relocate"]
