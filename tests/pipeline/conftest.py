"""Fixtures of the tests of the agent's pipeline: the control plane is the one of the cluster tests."""

from tests.cluster.conftest import account, cluster, namespace, plane, pytest_collection_modifyitems

__all__ = ["account", "cluster", "namespace", "plane", "pytest_collection_modifyitems"]
