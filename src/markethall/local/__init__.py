"""Embedded servers, a local cluster and demo data, for development and tests."""
