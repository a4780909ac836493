"""Benchmarks of the application, and of baselines on the same machine; see README.md."""
