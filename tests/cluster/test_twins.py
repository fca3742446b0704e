"""Twins: Deployments with one past and two namespaces, undone by the real kubectl in the one and by us in the other.

What the unit test finds about the choice holds here for the whole way: the controller has made the histories, the API
server applies the patches, and the controller renumbers the revisions afterwards.
"""

import asyncio
import json
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane, ControlPlaneError, Json
from tests.oracle.differences import (
    Difference,
    as_go_reads,
    as_we_see,
    kubectl_choice,
    live,
    named_difference,
    number,
    owned,
    same_refusal,
)
from tests.oracle.histories import CHANGE_CAUSE, CONDEMNED, HASH, REVISION, History
from tests.oracle.kubectl import Did, what_it_did
from watchdog.app import assemble
from watchdog.config import Config, Rollback, Seconds
from watchdog.decide.plan import Request
from watchdog.model import Cause, Outcome, Result
from watchdog.objects import WorkloadRef

TWINS = 26


class Twins:
    """One Deployment in each of two namespaces; what is done is done to both."""

    def __init__(self, seed: int, theirs: Cluster, ours: Cluster) -> None:
        self.name = f"twin-{seed}"
        self.chance = random.Random(seed)
        self.theirs = theirs
        self.ours = ours
        self.past: list[str] = []
        some = self.chance.choices(LIFE, k=self.chance.randint(0, 3))
        self.future = [set_image, set_environment, *some, LIFE[seed % len(LIFE)]]

    @property
    def both(self) -> tuple[Cluster, Cluster]:
        """The two namespaces."""
        return self.theirs, self.ours

    def live(self) -> None:
        """Go through a random sequence of operations, each seen by the controller before the next."""
        for cluster in self.both:
            cluster.create_deployment(self.name, replicas=0)  # what is compared needs no pods
        self.settle()
        for operation in self.future:
            self.past.append(operation.__name__)
            operation(self)
            self.settle()

    def patch(self, body: Json) -> None:
        """Patch both Deployments."""
        for cluster in self.both:
            cluster.patch("deployments", self.name, body)

    def patch_replicaset(self, replicaset: Json, body: Json) -> None:
        """Patch both ReplicaSets of this name: it ends in a hash of the template, and so do both twins' names."""
        for cluster in self.both:
            cluster.patch("replicasets", replicaset["metadata"]["name"], body)

    def old_ones(self) -> list[Json]:
        """The revisions that are not live, by their numbers."""
        history = self.history(self.theirs)
        current = live(history)
        old = [item for item in owned(history) if item is not current]
        return sorted(old, key=lambda item: (number(item), item["metadata"]["name"]))

    def old_one(self) -> Json | None:
        """One of them, mostly the newest; None where there is none."""
        old = self.old_ones()
        return self.chance.choice([*old, *old[-1:] * 3]) if old else None

    def history(self, cluster: Cluster) -> History:
        """A twin's history as it is."""
        deployment = cluster.get("deployments", self.name)
        selector = f"?labelSelector=app%3D{self.name}"
        replicasets = cluster.plane.api("GET", cluster.path("replicasets") + selector)["items"]
        return History(deployment, tuple(replicasets), twists=tuple(self.past))

    def settle(self) -> None:
        """Wait until both are observed and numbered."""
        for cluster in self.both:
            cluster.wait(lambda: _is_settled(self.history(cluster)), what=f"{self.past} of {self.name}")  # noqa: B023
        if give_one_the_number_of_another in self.future:
            # Which of two equal numbers comes first goes by the age of the ReplicaSets, in whole seconds.
            time.sleep(1 - time.time() % 1)


def _is_settled(history: History) -> bool:
    metadata, current = history.deployment["metadata"], live(history)
    if history.deployment["status"].get("observedGeneration", 0) < metadata["generation"]:
        return False
    if current is None:
        return bool(history.deployment["spec"].get("paused"))
    others = [number(item) for item in owned(history) if item is not current]
    is_newest = number(current) > max(others, default=0)
    return is_newest and metadata["annotations"].get(REVISION) == str(number(current))


# -- What happens to Deployments ---------------------------------------------------------------------------------------


def set_image(twins: Twins) -> None:
    container = {"name": "app", "image": twins.chance.choice(("v2", "v3", "v4"))}
    cause = twins.chance.choice((None, f"release {twins.chance.randint(1, 9)}"))
    metadata = {"annotations": {CHANGE_CAUSE: cause}}
    twins.patch({"metadata": metadata, "spec": {"template": {"spec": {"containers": [container]}}}})


def set_environment(twins: Twins) -> None:
    variable = {"name": "SETTING", "value": str(twins.chance.randint(1, 3))}
    twins.patch({"spec": {"template": {"spec": {"containers": [{"name": "app", "env": [variable]}]}}}})


def restart(twins: Twins) -> None:
    """As `kubectl rollout restart` does, at the same moment in both."""
    stamp = {"kubectl.kubernetes.io/restartedAt": f"2026-03-01T00:00:{twins.chance.randint(10, 59)}Z"}
    twins.patch({"spec": {"template": {"metadata": {"annotations": stamp}}}})


def spell_an_amount_otherwise(twins: Twins) -> None:
    """The second spelling is no new revision to the controller."""
    for memory in ("1Gi", "1073741824"):
        container = {"name": "app", "resources": {"limits": {"memory": memory}}}
        twins.patch({"spec": {"template": {"spec": {"containers": [container]}}}})
        twins.settle()


def scale(twins: Twins) -> None:
    twins.patch({"spec": {"replicas": twins.chance.randint(0, 2)}})


def pause(twins: Twins) -> None:
    twins.patch({"spec": {"paused": True}})


def resume(twins: Twins) -> None:
    twins.patch({"spec": {"paused": None}})


def delete_an_old_one(twins: Twins) -> None:
    if old := twins.old_one():
        for cluster in twins.both:
            cluster.delete("replicasets", old["metadata"]["name"])
            path = cluster.path("replicasets", old["metadata"]["name"])
            cluster.wait(lambda: not cluster.plane.exists(path))  # noqa: B023


def orphan_an_old_one(twins: Twins) -> None:
    """Take its label away: the controller lets it go."""
    if old := twins.old_one():
        twins.patch_replicaset(old, {"metadata": {"labels": {"app": "nobody"}}})


def wipe_the_old_numbers(twins: Twins) -> None:
    for old in twins.old_ones():
        twins.patch_replicaset(old, {"metadata": {"annotations": {REVISION: None}}})


def give_one_the_number_of_another(twins: Twins) -> None:
    old, other = twins.old_one(), twins.old_one()
    if old and other and REVISION in other["metadata"]["annotations"]:
        text = other["metadata"]["annotations"][REVISION]
        twins.patch_replicaset(old, {"metadata": {"annotations": {REVISION: text}}})


def condemn_an_old_one(twins: Twins) -> None:
    if old := twins.old_one():
        mark = f"{old['metadata']['labels'][HASH]}:{twins.name}-2-deadbeef"
        twins.patch_replicaset(old, {"metadata": {"annotations": {CONDEMNED: mark}}})


def undo_with_kubectl(twins: Twins) -> None:
    for cluster in twins.both:
        kubectl_undo(cluster, twins.name)


Operation = Callable[[Twins], None]

LIFE: tuple[Operation, ...] = (
    set_image,
    set_environment,
    restart,
    spell_an_amount_otherwise,
    scale,
    pause,
    resume,
    delete_an_old_one,
    orphan_an_old_one,
    wipe_the_old_numbers,
    give_one_the_number_of_another,
    condemn_an_old_one,
    undo_with_kubectl,
)


def kubectl_undo(cluster: Cluster, name: str) -> Did:
    try:
        return what_it_did(cluster.kubectl("rollout", "undo", f"deployment/{name}"), patched=True)
    except ControlPlaneError as error:
        return what_it_did(str(error), patched=False)


# -- Their lives -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Life:
    """What became of two twins."""

    before: History
    did: Did
    result: Result
    after_theirs: History
    after_ours: History

    @property
    def agree(self) -> bool:
        """Whether both were undone and look the same, or neither was for the same reason."""
        if self.result.refused:
            return same_refusal(self.result.refused.guard, self.did)
        both_undone = self.did is Did.PATCHED and self.result.outcome is Outcome.ROLLED_BACK
        return both_undone and _story(self.after_ours) == _story(self.after_theirs)

    def __str__(self) -> str:
        return f"{self.before.twists}; kubectl: {self.did}; ours: {self.result.detail}"


@pytest.fixture(scope="module")
def lives(plane: ControlPlane) -> Iterator[Sequence[Life]]:
    """All lives, four at a time."""
    namespaces = [f"twins-{word}-{secrets.token_hex(3)}" for word in ("of-kubectl", "of-ours")]
    for name in namespaces:
        plane.api("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    clusters = [Cluster(plane, name) for name in namespaces]
    for cluster in clusters:
        cluster.wait(lambda: plane.exists(cluster.path("serviceaccounts", "default")))  # noqa: B023
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield list(pool.map(lambda seed: _live(Twins(seed, *clusters)), range(TWINS)))
    for name in namespaces:
        plane.api("DELETE", f"/api/v1/namespaces/{name}")


def _live(twins: Twins) -> Life:
    twins.live()
    before, of_ours = (twins.history(cluster) for cluster in twins.both)
    assert _story(before) == _story(of_ours), f"{before.twists} left twins that are none"
    did = kubectl_undo(twins.theirs, twins.name)
    result = asyncio.run(_undo(twins.ours, twins.name))
    twins.settle()
    return Life(before, did, result, *(twins.history(cluster) for cluster in twins.both))


async def _undo(cluster: Cluster, name: str) -> Result:
    config = Config(rollback=Rollback(observed_within=Seconds(0.5)))
    async with assemble(config, kubeconfig=str(cluster.plane.kubeconfig), context=None) as parts:
        request = Request(cause=Cause(by="a twin", reason="held to kubectl"))
        return await parts.actor.undo(WorkloadRef(cluster.namespace, name), request, verify=False)


def _story(history: History) -> Json:
    """What twins have in common: the live template, and of each revision its number and cause."""
    annotations = {item["metadata"]["name"]: item["metadata"].get("annotations", {}) for item in owned(history)}
    return {
        "template": as_go_reads(history.deployment["spec"]["template"]),
        "cause": history.deployment["metadata"]["annotations"].get(CHANGE_CAUSE),
        "revisions": {name: (found.get(REVISION), found.get(CHANGE_CAUSE)) for name, found in annotations.items()},
    }


def test_twins_end_up_with_the_same_template_numbers_and_causes_or_differ_for_a_reason_with_a_name(
    lives: Sequence[Life], record_testsuite_property: Callable[[str, object], None]
) -> None:
    names = (f"agree: {life.did}" if life.agree else f"differ: {named_difference(life.before)}" for life in lives)
    outcomes = Counter(names)
    record_testsuite_property("lives by outcome", json.dumps(outcomes))
    unexplained = [str(life) for life in lives if not life.agree and named_difference(life.before) is None]
    assert not unexplained, "\n".join(unexplained)
    assert outcomes["agree: patched"] >= TWINS / 4, outcomes
    assert len(outcomes) >= 5, outcomes


def test_where_twins_differ_ours_is_left_alone_or_goes_where_kubectl_would_without_what_we_pass_over(
    lives: Sequence[Life],
) -> None:
    for life in (life for life in lives if not life.agree):
        name, template = named_difference(life.before), life.after_ours.deployment["spec"]["template"]
        if life.result.refused:
            assert str(life.result.refused.guard) == name or name is Difference.UNNUMBERED, life
            assert as_go_reads(template) == as_go_reads(life.before.deployment["spec"]["template"]), life
        else:
            choice = kubectl_choice(as_we_see(life.before))
            assert choice is not None, life
            assert as_go_reads(template) == as_go_reads(choice["spec"]["template"]), life
