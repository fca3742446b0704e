"""The switch-back of a blue-green Service: what it writes, and what refuses it."""

import copy
import datetime as dt
import json

import msgspec
import pytest

from tests.unit.builders import CAUSE, NOW, Json, decoded, hash_of
from tests.unit.json_patch import PatchFailedError, apply
from watchdog.decide import marks
from watchdog.decide.record import Record, Switched
from watchdog.decide.switch import Colours, colour_before, plan_switch_back, stands, written_switch
from watchdog.model import Action, Guard, Mode, Objection, Rollout, ScaleUp, SwitchBack, Topology
from watchdog.objects import (
    HASH_LABEL,
    REVISION,
    Deployment,
    Pod,
    ReplicaSet,
    Service,
    Snapshot,
    TemplateHash,
    WorkloadRef,
)

BLUE, GREEN = {"app": "agent", "colour": "blue"}, {"app": "agent", "colour": "green"}
SELECTORS = {"blue": BLUE, "green": GREEN}


NONCE = "ab" * 16


class Stage:
    """A Service that was switched from blue to green, as JSON to be changed at will."""

    def __init__(self, *, blue_ready: int = 3, green_ready: int = 3, blue_replicas: int = 3) -> None:
        self.service: Json = {
            "metadata": {"name": "agent", "namespace": "shop", "uid": "service-uid"},
            "spec": {"selector": dict(GREEN)},
        }
        self.deployments = {"blue": _deployment("blue", blue_replicas), "green": _deployment("green", 3)}
        self.sets = {colour: _replicaset(colour) for colour in SELECTORS}
        self.pods = [*(_pod("blue", n) for n in range(blue_ready)), *(_pod("green", n) for n in range(green_ready))]
        self.record = Record(
            id=(rollout := _rollout()).incident,
            rollout=rollout,
            policy="agent",
            policy_digest="d",
            topology=Topology.BLUE_GREEN,
            mode=Mode.ENFORCE,
            action=Action.SWITCH_BACK,
            started=NOW,
            stable=WorkloadRef("shop", "agent-blue"),
            stable_hash=hash_of("blue"),
            switched=Switched("agent", "service-uid", BLUE, GREEN, 3),
            proofs=(marks.digest(NONCE, rollout),),
        )

    def seen(self) -> Colours:
        live, old = (
            Snapshot(decoded(self.deployments[colour], Deployment), (decoded(self.sets[colour], ReplicaSet),))
            for colour in ("green", "blue")
        )
        pods = tuple(decoded(pod, Pod) for pod in self.pods)
        return Colours(service=decoded(self.service, Service), live=live, old=old, pods=pods)

    def plan(self, *, gitops_act: bool = False) -> SwitchBack | ScaleUp | Objection:
        return plan_switch_back(self.seen(), self.record, CAUSE, nonce=NONCE, gitops_act=gitops_act, now=NOW)

    def switch_back(self) -> SwitchBack:
        plan = self.plan()
        assert isinstance(plan, SwitchBack), plan
        return plan

    def guard(self) -> Guard:
        plan = self.plan()
        assert isinstance(plan, Objection), plan
        return plan.guard


def _rollout() -> Rollout:
    return Rollout(WorkloadRef("shop", "agent-green"), "uid-green", 1, hash_of("green"), "service-uid/2026")


def _template(colour: str) -> Json:
    container = {"name": "app", "image": f"agent:{colour}"}
    return {"metadata": {"labels": dict(SELECTORS[colour])}, "spec": {"containers": [container]}}


def _deployment(colour: str, replicas: int) -> Json:
    metadata = {"name": f"agent-{colour}", "namespace": "shop", "uid": f"uid-{colour}", "generation": 1}
    return {
        "metadata": {**metadata, "annotations": {REVISION: "1"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": dict(SELECTORS[colour])},
            "template": _template(colour),
        },
        "status": {"observedGeneration": 1},
    }


def _replicaset(colour: str) -> Json:
    return {
        "metadata": {
            "name": f"agent-{colour}-{hash_of(colour)}",
            "uid": f"set-{colour}",
            "creationTimestamp": "2026-03-01T10:00:00Z",
            "labels": {**SELECTORS[colour], HASH_LABEL: hash_of(colour)},
            "annotations": {REVISION: "1"},
            "ownerReferences": [{"uid": f"uid-{colour}", "controller": True}],
        },
        "spec": {"replicas": 3, "template": _template(colour)},
    }


def _pod(colour: str, number: int) -> Json:
    return {
        "metadata": {
            "name": f"{colour}-{number}",
            "uid": f"{colour}-{number}",
            "labels": dict(SELECTORS[colour]),
            "ownerReferences": [{"uid": f"set-{colour}", "controller": True}],
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def test_the_traffic_goes_back_with_the_mark_in_the_same_patch() -> None:
    stage = Stage()
    after = apply(stage.switch_back().patch, stage.service)
    assert after["spec"]["selector"] == BLUE
    mark = json.loads(after["metadata"]["annotations"][marks.LAST_ROLLBACK])
    assert (mark["incident"], mark["from_hash"], mark["to_hash"]) == (
        stage.record.id,
        hash_of("green"),
        hash_of("blue"),
    )


def test_other_annotations_of_the_service_stay() -> None:
    stage = Stage()
    stage.service["metadata"]["annotations"] = {"team": "agents"}
    after = apply(stage.switch_back().patch, stage.service)
    assert after["metadata"]["annotations"]["team"] == "agents"


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"selector": dict(BLUE)}},
        {"spec": {"selector": {**GREEN, "version": "v3"}}},
        {"metadata": {"name": "agent", "namespace": "shop", "uid": "another"}},
        {"metadata": {"name": "agent", "namespace": "shop", "uid": "service-uid", "annotations": {marks.HOLD: "x"}}},
    ],
)
def test_whoever_changes_the_service_first_wins(change: Json) -> None:
    stage = Stage()
    patch = stage.switch_back().patch
    with pytest.raises(PatchFailedError):
        apply(patch, {**copy.deepcopy(stage.service), **change})


def test_four_of_five_pods_are_enough_and_three_are_not() -> None:
    assert isinstance(Stage(blue_ready=4, green_ready=5).plan(), SwitchBack)
    plan = Stage(blue_ready=3, green_ready=5).plan()
    assert isinstance(plan, ScaleUp)
    assert (plan.replicas, plan.refused.guard) == (4, Guard.NO_CAPACITY)


def test_a_colour_that_was_scaled_away_gets_its_former_count_first() -> None:
    stage = Stage(blue_ready=0, blue_replicas=0)
    plan = stage.plan()
    assert isinstance(plan, ScaleUp)
    after = apply(plan.patch, stage.deployments["blue"])
    assert (plan.colour.name, after["spec"]["replicas"]) == ("agent-blue", 3)
    stage.deployments["blue"]["spec"]["replicas"] = 1  # somebody scales it at the same time
    with pytest.raises(PatchFailedError):
        apply(plan.patch, stage.deployments["blue"])


def test_pods_that_are_on_their_way_are_waited_for() -> None:
    assert Stage(blue_ready=1).guard() is Guard.NO_CAPACITY


def test_pods_that_are_going_or_that_the_service_would_not_select_are_no_capacity() -> None:
    stage = Stage()
    stage.pods[0]["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    stage.pods[1]["metadata"]["labels"] = {"app": "agent"}
    assert stage.guard() is Guard.NO_CAPACITY


def test_another_switch_in_between_is_left_alone() -> None:
    stage = Stage()
    stage.service["spec"]["selector"] = dict(BLUE)
    assert stage.guard() is Guard.SUPERSEDED


def test_a_hotfix_of_the_live_colour_is_left_alone() -> None:
    stage = Stage()
    stage.record = msgspec.structs.replace(
        stage.record, rollout=msgspec.structs.replace(stage.record.rollout, hash=TemplateHash("other"))
    )
    assert stage.guard() is Guard.SUPERSEDED


def test_a_colour_that_was_changed_since_the_switch_is_no_way_back() -> None:
    stage = Stage()
    stage.record = msgspec.structs.replace(stage.record, stable_hash=TemplateHash("former"))
    assert stage.guard() is Guard.NO_TARGET


def test_an_unknown_selector_of_before_is_no_way_back() -> None:
    stage = Stage()
    stage.record = msgspec.structs.replace(stage.record, switched=Switched("agent", "service-uid", {}, GREEN, 3))
    assert stage.guard() is Guard.NO_TARGET


def test_a_condemned_colour_is_no_way_back() -> None:
    stage = Stage()
    mark = marks.write_about(hash_of("blue"), stage.record.id)
    stage.sets["blue"]["metadata"]["annotations"][marks.CONDEMNED] = mark
    assert stage.guard() is Guard.CONDEMNED


@pytest.mark.parametrize("managed", ["service", "green"])
def test_gitops_refuses_on_the_service_and_on_the_deployment(managed: str) -> None:
    stage = Stage()
    item = stage.service if managed == "service" else stage.deployments["green"]
    item["metadata"]["labels"] = {"argocd.argoproj.io/instance": "agents"}
    assert stage.guard() is Guard.GITOPS
    assert isinstance(stage.plan(gitops_act=True), SwitchBack)


def test_gitops_refuses_to_scale_its_colour_too() -> None:
    stage = Stage(blue_ready=0, blue_replicas=0)
    stage.deployments["blue"]["metadata"]["labels"] = {"argocd.argoproj.io/instance": "agents"}
    assert stage.guard() is Guard.GITOPS


@pytest.mark.parametrize("held", ["service", "green"])
def test_a_hold_binds_on_the_service_and_on_the_deployment(held: str) -> None:
    stage = Stage()
    item = stage.service if held == "service" else stage.deployments["green"]
    until = NOW + dt.timedelta(hours=1)
    item["metadata"].setdefault("annotations", {})[marks.HOLD] = f"until={until:%Y-%m-%dT%H:%M:%SZ};freeze"
    assert stage.guard() is Guard.HOLD


def test_a_write_without_an_answer_is_recognised_by_its_mark_and_the_selector() -> None:
    stage = Stage()
    plan = stage.switch_back()
    assert written_switch(stage.seen(), stage.record, now=NOW) is None
    stage.service = apply(plan.patch, stage.service)
    found = written_switch(stage.seen(), stage.record, now=NOW)
    assert found
    assert (found.mark, found.live, found.target) == (plan.mark, plan.live, plan.target)
    stage.service["spec"]["selector"] = dict(GREEN)  # and somebody switches again
    assert not stands(decoded(stage.service, Service), stage.record, now=NOW)


def test_two_switches_to_the_same_version_are_two_incidents() -> None:
    rollout = _rollout()
    assert rollout.incident != msgspec.structs.replace(rollout, switch="service-uid/2027").incident


def test_the_selector_of_before_is_what_was_seen_else_what_the_labels_say() -> None:
    live = decoded(Stage().service, Service)
    assert colour_before(live, {"colour": "blue"}, BLUE) == {"colour": "blue"}
    assert colour_before(live, None, BLUE) == BLUE
    assert colour_before(live, None, {"app": "agent"}) == {}
