"""Markethall: a commerce backend. Its contexts run in one process or as separate services."""

__version__ = "0.1.0"
