"""Servers, a cluster of services and demo data for one machine: for development and for tests."""
