"""Markethall: a commerce backend of contexts that run in one process or as services."""

__version__ = "0.1.0"
