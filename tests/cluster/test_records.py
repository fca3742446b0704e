"""Records on a real API server, with the service's own rights."""

import datetime as dt
from pathlib import Path

import msgspec
import pytest

from tests.cluster.conftest import ACCOUNT
from tests.component.test_records import FULL, block, pod, record
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane
from watchdog.app import assemble
from watchdog.config import Config, RecordKind
from watchdog.decide.record import State
from watchdog.records import RecordStore

NOW = dt.datetime.now(dt.UTC)
KEEPER = {"apiGroups": [""], "resources": ["configmaps", "secrets"]}


@pytest.mark.parametrize("kind", list(RecordKind))
async def test_a_record_lives_from_its_first_save_to_its_deletion(cluster: Cluster, kind: RecordKind) -> None:
    kubeconfig = cluster.service_account("keeper", {**KEEPER, "verbs": ["get", "list", "create", "patch", "delete"]})
    async with assemble(Config(), kubeconfig=str(kubeconfig), context=None) as parts:

        def store() -> RecordStore:
            return RecordStore(parts.cluster, namespace=cluster.namespace, kind=kind, now=lambda: NOW)

        begun = msgspec.structs.replace(FULL, state=State.ACTING, ended=None, outcome=None)
        for each in (begun, FULL):
            await store().save(each, timeout_s=5)  # each time by another process
            assert await store().get(FULL.id, timeout_s=5) == each
        newer, older = (record("api", index, ended=NOW - dt.timedelta(days=index)) for index in (1, 2))
        writer = store()
        for each in (newer, older, older):
            await writer.save(each, timeout_s=5)
        assert {each.id for each in await store().all(timeout_s=5)} == {FULL.id, newer.id, older.id}
        for _ in range(2):
            await writer.prune((FULL, newer, older), timeout_s=5)
        assert {each.id for each in await store().all(timeout_s=5)} == {FULL.id, newer.id}
        labels = cluster.get(f"{kind}s", f"rollback-watchdog-{FULL.id}")["metadata"]["labels"]
        assert labels["rollback-watchdog.io/state"] == "ended"


async def test_the_largest_record_is_accepted(plane: ControlPlane, account: Path) -> None:
    blocks = {name: tuple(block(step) for step in range(480)) for name in ("errors", "slow")}
    huge = record("huge", pods=tuple(pod(index) for index in range(2000)), blocks=blocks)
    async with assemble(Config(), kubeconfig=str(account), context=None) as parts:
        store = RecordStore(parts.cluster, namespace=ACCOUNT, kind=RecordKind.CONFIG_MAP, now=lambda: NOW)
        await store.save(huge, timeout_s=5)
        found = await store.get(huge.id, timeout_s=5)
    assert found is not None
    assert found.pods == huge.pods[-len(found.pods) :]
    plane.admin("delete", "configmap", f"rollback-watchdog-{huge.id}", f"--namespace={ACCOUNT}")
