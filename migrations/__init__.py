"""Alembic migrations of the control plane's tables."""
