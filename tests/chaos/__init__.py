"""Faults injected into the running product under a load of small real trainings; see docs/reliability.md."""
