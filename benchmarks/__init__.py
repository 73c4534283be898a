"""Measurements against the goals of docs/performance.md: `python -m benchmarks [NAME…]`."""
