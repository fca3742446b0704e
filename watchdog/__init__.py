"""Rollback Watchdog: undoes bad rollouts of plain Kubernetes Deployments."""

__version__ = "0.1.0"
