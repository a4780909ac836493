"""Markethall: one hall, four stalls, and any of them can move out."""

__version__ = "0.1.0"
