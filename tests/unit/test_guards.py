"""The policy guards, each asked alone."""

import datetime as dt

import pytest

from tests.unit.builders import NOW, Json, Scene, autoscaler, decoded, hash_of, history, managed, replicaset, template
from watchdog.decide import guards, marks
from watchdog.decide.revisions import read_history
from watchdog.model import Guard, GuardClass, IncidentId, Objection
from watchdog.objects import Autoscaler, ReplicaSet

LIVE = hash_of("v2")
INCIDENT = IncidentId("web-2-0badf00d")


def gitops(scene: Scene) -> str:
    refused = guards.gitops(scene.snapshot.deployment)
    assert refused is not None
    assert refused.guard is Guard.GITOPS
    return refused.detail


def hold(scene: Scene) -> Objection | None:
    live = read_history(scene.snapshot).live or scene.snapshot.replicasets[-1]
    return guards.hold(scene.snapshot.deployment, live, now=NOW)


def test_guards_of_fact_bind_everyone_and_guards_of_policy_can_be_forced() -> None:
    physical = {guard for guard in Guard if guard.guard_class is GuardClass.PHYSICAL}
    facts = {Guard.SUPERSEDED, Guard.NOT_OBSERVED, Guard.NO_TARGET, Guard.NOTHING_TO_UNDO, Guard.NO_CAPACITY}
    assert physical == facts | {Guard.ALREADY}


# -- paused ------------------------------------------------------------------------------------------------------------


def test_a_pause_by_somebody_is_respected_and_both_commands_are_shown() -> None:
    scene = history("v1", "v2")
    scene.pause()
    refused = guards.paused(scene.snapshot.deployment, LIVE)
    assert refused is not None
    assert "kubectl rollout resume deployment/web -n shop && rollback-watchdog rollback shop/web" in refused.detail


def test_our_own_pause_of_the_live_version_is_no_obstacle() -> None:
    scene = history("v1", "v2")
    scene.pause(incident=INCIDENT, version="v2")
    assert guards.paused(scene.snapshot.deployment, LIVE) is None


def test_our_mark_about_another_version_does_not_make_a_pause_ours() -> None:
    # We paused v1, somebody resumed it and deployed v2, and then somebody paused that.
    scene = history("v1", "v2")
    scene.pause(incident=INCIDENT, version="v1")
    assert guards.paused(scene.snapshot.deployment, LIVE) is not None


def test_our_mark_without_a_pause_pauses_nothing() -> None:
    scene = history("v1", "v2")
    scene.pause(incident=INCIDENT, version="v2")
    scene.spec["paused"] = False
    assert guards.paused(scene.snapshot.deployment, LIVE) is None
    assert not guards.paused_by_us(scene.snapshot.deployment, LIVE)


# -- recreate and condemned --------------------------------------------------------------------------------------------


def test_strategy_recreate_is_refused_because_it_means_downtime() -> None:
    scene = history("v1", "v2")
    assert guards.recreate(scene.snapshot.deployment) is None
    scene.spec["strategy"] = {"type": "Recreate"}
    refused = guards.recreate(scene.snapshot.deployment)
    assert refused is not None
    assert "downtime" in refused.detail


def test_a_condemned_target_is_refused_with_the_way_to_absolve_it() -> None:
    scene = history("v1", "v2")
    scene.condemn("v1", incident=INCIDENT)
    refused = guards.condemned(scene.snapshot.deployment, decoded(scene.replicaset("v1"), ReplicaSet))
    assert refused is not None
    assert INCIDENT in refused.detail
    assert "rollback-watchdog history shop/web --absolve 1" in refused.detail


def test_a_target_with_a_condemnation_of_another_is_not_refused() -> None:
    document = replicaset("v1", 1)
    document["metadata"]["annotations"][marks.CONDEMNED] = marks.write_about(LIVE, INCIDENT)
    assert guards.condemned(history("v1", "v2").snapshot.deployment, decoded(document, ReplicaSet)) is None


# -- GitOps ------------------------------------------------------------------------------------------------------------


def test_a_workload_that_nobody_syncs_is_free() -> None:
    scene = history("v1", "v2")
    scene.deployment["metadata"]["labels"] = {"app.kubernetes.io/instance": "web", "helm.sh/chart": "web-1.0.0"}
    scene.deployment["metadata"]["managedFields"] = [managed("kubectl"), managed("helm"), managed("argo-rollouts")]
    assert guards.gitops(scene.snapshot.deployment) is None


def test_argo_cd_is_known_by_its_tracking_id_and_the_cure_names_the_application() -> None:
    scene = history("v1", "v2")
    scene.annotations["argocd.argoproj.io/tracking-id"] = "shop-web:apps/Deployment:shop/web"
    detail = gitops(scene)
    assert "managed by Argo CD (application shop-web)" in detail
    assert "(argocd app set shop-web --sync-policy none)" in detail


@pytest.mark.parametrize(
    ("labels", "owner", "cure"),
    [
        (
            {"argocd.argoproj.io/instance": "shop-web"},
            "Argo CD (application shop-web)",
            "argocd app set shop-web --sync-policy none",
        ),
        (
            {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"},
            "Flux (kustomization apps)",
            "flux suspend kustomization apps -n flux-system",
        ),
        (
            {"helm.toolkit.fluxcd.io/name": "web", "helm.toolkit.fluxcd.io/namespace": "releases"},
            "Flux (helmrelease web)",
            "flux suspend helmrelease web -n releases",
        ),
        (
            {"helm.toolkit.fluxcd.io/name": "web"},
            "Flux (helmrelease web)",
            "flux suspend helmrelease web -n shop",
        ),
    ],
)
def test_a_sync_is_known_by_its_labels_and_the_cure_can_be_pasted(labels: Json, owner: str, cure: str) -> None:
    scene = history("v1", "v2")
    scene.deployment["metadata"]["labels"] = labels
    detail = gitops(scene)
    assert f"managed by {owner}" in detail
    assert f"({cure})" in detail


@pytest.mark.parametrize(
    ("manager", "owner"),
    [
        ("argocd-controller", "Argo CD"),
        ("argocd-application-controller", "Argo CD"),
        ("kustomize-controller", "Flux"),
        ("helm-controller", "Flux"),
    ],
)
def test_a_sync_is_known_by_its_field_manager(manager: str, owner: str) -> None:
    scene = history("v1", "v2")
    scene.deployment["metadata"]["managedFields"] = [managed("kubectl"), managed(manager)]
    assert f"managed by {owner} (field manager {manager})" in gitops(scene)


def test_every_refusal_of_gitops_names_the_revert_in_git_and_force() -> None:
    scene = history("v1", "v2")
    scene.deployment["metadata"]["managedFields"] = [managed("helm-controller")]
    assert "git revert" in gitops(scene)
    assert "--force" in gitops(scene)


# -- hold --------------------------------------------------------------------------------------------------------------


def test_a_hold_says_until_when_and_why() -> None:
    scene = history("v1", "v2")
    scene.annotations[marks.HOLD] = "until=2026-03-01T13:00:00Z;database migration"
    refused = hold(scene)
    assert refused == Objection(Guard.HOLD, "held until 2026-03-01T13:00:00Z: database migration")


def test_a_hold_in_another_zone_is_shown_in_utc() -> None:
    scene = history("v1", "v2")
    scene.annotations[marks.HOLD] = "until=2026-03-01T15:00:00+02:00;database migration"
    refused = hold(scene)
    assert refused is not None
    assert "held until 2026-03-01T13:00:00Z" in refused.detail


def test_a_hold_that_is_over_holds_nothing() -> None:
    scene = history("v1", "v2")
    scene.annotations[marks.HOLD] = "until=2026-03-01T11:59:59Z;database migration"
    assert hold(scene) is None


def test_a_hold_that_cannot_be_read_holds_and_says_how_to_write_it() -> None:
    scene = history("v1", "v2")
    scene.annotations[marks.HOLD] = "please"
    refused = hold(scene)
    assert refused is not None
    assert "'please' (write until=<RFC3339>;reason)" in refused.detail


@pytest.mark.parametrize(("age", "held"), [(dt.timedelta(days=6, hours=23), True), (dt.timedelta(days=7), False)])
def test_a_long_hold_ends_seven_days_after_managed_fields_say_it_was_set(age: dt.timedelta, *, held: bool) -> None:
    scene = history("v1", "v2")
    scene.annotations[marks.HOLD] = "until=2027-01-01T00:00:00Z;do not touch"
    fields: Json = {"f:metadata": {"f:annotations": {f"f:{marks.HOLD}": {}}}}
    set_at = (NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    scene.deployment["metadata"]["managedFields"] = [managed("kubectl-annotate", fields=fields, time=set_at)]
    assert (hold(scene) is not None) is held


def test_a_hold_in_the_pod_template_holds_that_revision() -> None:
    scene = history("v1", "v2")
    scene.spec["template"] = template("v2", annotations={marks.HOLD: "until=2026-03-01T13:00:00Z;irreversible"})
    refused = hold(scene)
    assert refused is not None
    assert "irreversible" in refused.detail


@pytest.mark.parametrize(("age", "held"), [(dt.timedelta(days=6), True), (dt.timedelta(days=7), False)])
def test_a_long_hold_in_the_pod_template_ends_after_seven_days_too(age: dt.timedelta, *, held: bool) -> None:
    scene = history("v1", "v2")
    scene.spec["template"] = template("v2", annotations={marks.HOLD: "until=2027-01-01T00:00:00Z;irreversible"})
    fields: Json = {"f:spec": {"f:template": {"f:metadata": {"f:annotations": {f"f:{marks.HOLD}": {}}}}}}
    set_at = (NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    scene.deployment["metadata"]["managedFields"] = [managed("helm", fields=fields, time=set_at)]
    assert (hold(scene) is not None) is held


def test_a_hold_in_a_pod_template_that_nobody_owns_is_as_old_as_its_replicaset() -> None:
    # So it is after an undo of ours, which gives its ownership up: it must not count as new for ever.
    scene = history("v1", "v2")
    held = template("v2", annotations={marks.HOLD: "until=2027-01-01T00:00:00Z;irreversible"})
    scene.spec["template"] = scene.replicasets[-1]["spec"]["template"] = held
    assert hold(scene) is not None
    scene.replicasets[-1]["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert hold(scene) is None


def test_an_expired_hold_on_the_deployment_does_not_hide_one_in_the_pod_template() -> None:
    scene = history("v1", "v2")
    scene.annotations[marks.HOLD] = "until=2026-03-01T11:00:00Z;over"
    scene.spec["template"] = template("v2", annotations={marks.HOLD: "until=2026-03-01T13:00:00Z;irreversible"})
    assert hold(scene) is not None


# -- KEDA --------------------------------------------------------------------------------------------------------------

KEDA = {"scaledobject.keda.sh/name": "web-queue"}


def test_a_workload_that_keda_scales_is_refused_and_undo_is_named_instead() -> None:
    refused = guards.keda(history("v1").snapshot.deployment, [autoscaler("other"), autoscaler("web", labels=KEDA)])
    assert refused is not None
    assert refused.guard is Guard.KEDA
    assert "ScaledObject web-queue" in refused.detail
    assert "undo" in refused.detail


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(autoscaler("web"), id="an autoscaler of its own"),
        pytest.param(autoscaler("web-canary", labels=KEDA), id="another Deployment"),
        pytest.param(autoscaler("web", labels=KEDA, kind="StatefulSet"), id="another kind"),
    ],
)
def test_other_autoscalers_are_no_obstacle(other: Autoscaler) -> None:
    assert guards.keda(history("v1").snapshot.deployment, [other]) is None
