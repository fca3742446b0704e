"""Fixtures of the tests of the agent's pipeline: the control plane is the one of the cluster tests."""

from tests.cluster.conftest import cluster, namespace, plane, pytest_collection_modifyitems

__all__ = ["cluster", "namespace", "plane", "pytest_collection_modifyitems"]
