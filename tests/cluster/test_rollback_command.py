"""`rollback`, `history` and `check` against a real API server, under the account that `deploy/` gives the service."""

from pathlib import Path

import pytest

from tests.cluster.command import Command
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane, Json
from watchdog.objects import WorkloadRef

LAST_ROLLBACK = "rollback-watchdog.io/last-rollback"
CAUSE = "kubernetes.io/change-cause"


@pytest.fixture
def bad_rollout(cluster: Cluster) -> Cluster:
    """`web` with v1 and v2 complete and v3 stuck: its pods never become ready."""
    cluster.create_deployment("web", image="v1", annotations={CAUSE: "ship v1"})
    cluster.wait_complete("web")
    cluster.set_image("web", "v2")
    cluster.wait_complete("web")
    cluster.set_image("web", "v3", template_annotations={"sim/mode": "never-ready"})
    cluster.wait(lambda: len(cluster.replicasets("web")) == 3)
    return cluster


def live_image(cluster: Cluster) -> str:
    """The image that the Deployment asks for."""
    image: str = cluster.get("deployments", "web")["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def event_reasons(cluster: Cluster) -> list[str]:
    """The reasons of our Events in the namespace, oldest first."""
    ours = [event for event in cluster.objects("events") if event["reportingController"] == "rollback-watchdog"]
    return [event["reason"] for event in sorted(ours, key=lambda event: str(event["eventTime"]))]


def test_a_bad_version_is_undone_and_proven(bad_rollout: Cluster, watchdog: Command) -> None:
    done = watchdog.rollback("--reason", "v3 never starts")
    assert done.code == 0, done
    assert "rolled back 3 → 2, 3 of 3 pods available" in done.out
    assert "(now revision 4)" in done.out
    assert live_image(bad_rollout) == "v2"
    assert event_reasons(bad_rollout) == ["RollbackStarted", "RollbackCompleted"]
    shown = bad_rollout.kubectl("describe", "deployment", "web")
    assert "Rolling back 3 → 2 (by system:serviceaccount:rollback-watchdog:rollback-watchdog: v3 never starts)" in shown


def test_the_json_of_an_undo_is_one_object_that_says_everything(bad_rollout: Cluster, watchdog: Command) -> None:
    done = watchdog.rollback("--output=json", "--reason=bad")
    answer = done.json
    assert done.code == 0
    assert (answer["schema"], answer["command"], answer["outcome"]) == (1, "rollback", "rolled-back")
    assert (answer["from"]["revision"], answer["to"]["revision"], answer["revision"]) == (3, 2, 4)
    assert answer["from"]["images"] == {"app": "v3"}
    assert answer["guard"] is None
    mark = bad_rollout.get("deployments", "web")["metadata"]["annotations"][LAST_ROLLBACK]
    assert answer["incident"] in mark
    assert {line["incident"] for line in done.log if "incident" in line} == {answer["incident"]}
    assert done.log[-1]["event"] == "rolled-back"


def test_a_dry_run_is_checked_by_the_api_server_and_changes_nothing(bad_rollout: Cluster, watchdog: Command) -> None:
    before = bad_rollout.get("deployments", "web")
    done = watchdog.rollback("--dry-run")
    assert done.code == 0
    assert "would go back 3 → 2" in done.out
    assert "spec.containers[app].image: v3 -> v2" in done.out
    after = bad_rollout.get("deployments", "web")
    assert before["metadata"]["generation"] == after["metadata"]["generation"]
    assert before["metadata"]["annotations"] == after["metadata"]["annotations"]
    assert event_reasons(bad_rollout) == []


def test_a_named_revision_is_gone_to(bad_rollout: Cluster, watchdog: Command) -> None:
    assert watchdog.rollback("--to-revision=1").code == 0
    assert live_image(bad_rollout) == "v1"


def test_a_revision_that_does_not_exist_is_refused_with_those_that_do(bad_rollout: Cluster, watchdog: Command) -> None:
    done = watchdog.rollback("--to-revision=9", "--output=json")
    assert (done.code, done.json["guard"]) == (4, "no-target")
    assert "1, 2, 3" in done.json["detail"]
    assert event_reasons(bad_rollout) == ["RollbackRefused"]


def test_another_live_revision_than_the_expected_one_is_superseded(bad_rollout: Cluster, watchdog: Command) -> None:
    done = watchdog.rollback("--expected-current-revision=2", "--output=json")
    assert (done.code, done.json["outcome"], done.json["guard"]) == (4, "superseded", "superseded")
    assert live_image(bad_rollout) == "v3"
    assert event_reasons(bad_rollout) == ["RollbackSuperseded"]
    assert watchdog.rollback("--expected-current-revision=3").code == 0


def test_the_emergency_button_pressed_twice_does_not_bring_the_bad_version_back(
    bad_rollout: Cluster, watchdog: Command
) -> None:
    assert watchdog.rollback("--reason", "v3 never starts").code == 0
    again = watchdog.rollback("--reason", "still bad", "--force", "--output=json")
    assert (again.code, again.json["outcome"], live_image(bad_rollout)) == (0, "already", "v2")
    assert "revision 4 was put there by the rollback 3 → 2" in again.json["detail"]
    assert event_reasons(bad_rollout) == ["RollbackStarted", "RollbackCompleted"]
    further = watchdog.rollback("--expected-current-revision=4", "--output=json")
    assert (further.code, further.json["outcome"], live_image(bad_rollout)) == (0, "rolled-back", "v1")
    assert watchdog.rollback("--output=json").json["outcome"] == "already"
    assert watchdog.rollback("--to-revision=4").code == 0
    assert live_image(bad_rollout) == "v2"


def test_without_waiting_the_command_ends_with_the_accepted_write(bad_rollout: Cluster, watchdog: Command) -> None:
    done = watchdog.rollback("--no-wait")
    assert done.code == 0
    assert "not waited for" in done.out
    bad_rollout.wait_complete("web")
    assert event_reasons(bad_rollout) == ["RollbackStarted"]


def test_a_target_that_does_not_start_within_the_timeout_is_under_way_and_its_pods_are_named(
    cluster: Cluster, watchdog: Command
) -> None:
    cluster.create_deployment("web", image="v1", template_annotations={"sim/mode": "image-pull"})
    cluster.wait(lambda: len(cluster.replicasets("web")) == 1)
    cluster.set_image("web", "v2", template_annotations={"sim/mode": None})
    cluster.wait_complete("web")
    done = watchdog.rollback("--timeout=2s", "--output=json")
    assert (done.code, done.json["outcome"]) == (4, "under-way")
    assert "2 s" in done.json["detail"]
    assert done.json["pods"] == ["1 pod: app: ImagePullBackOff"]
    assert event_reasons(cluster) == ["RollbackStarted"]


def test_a_target_past_its_progress_deadline_fails_before_the_timeout(cluster: Cluster, watchdog: Command) -> None:
    cluster.create_deployment(
        "web", image="v1", template_annotations={"sim/mode": "crash-loop"}, progressDeadlineSeconds=2
    )
    cluster.wait(lambda: len(cluster.replicasets("web")) == 1)
    cluster.set_image("web", "v2", template_annotations={"sim/mode": None})
    cluster.wait_complete("web")
    done = watchdog.rollback("--timeout=30s")
    assert done.code == 4
    assert "the rollout exceeded its progress deadline" in done.out
    assert "1 pod: app: CrashLoopBackOff" in done.out


def test_a_command_that_is_ended_after_its_write_leaves_nothing_half_done(
    bad_rollout: Cluster, watchdog: Command, web: WorkloadRef
) -> None:
    def written() -> None:
        bad_rollout.wait(lambda: live_image(bad_rollout) == "v2")

    with bad_rollout.plane.frozen("kube-controller-manager"):  # the proof cannot come
        done = watchdog.interrupted(written, "rollback", str(web))
    assert done.code == 143, done
    assert "what the API server has accepted by now goes on" in done.err
    assert event_reasons(bad_rollout) == ["RollbackStarted"]
    entries = bad_rollout.get("deployments", "web")["metadata"]["managedFields"]
    assert "rollback-watchdog" not in {entry["manager"] for entry in entries}


def test_a_pause_of_someone_else_is_refused_with_both_commands_and_lifted_by_force(
    bad_rollout: Cluster, watchdog: Command
) -> None:
    bad_rollout.kubectl("rollout", "pause", "deployment/web")
    refused = watchdog.rollback()
    assert refused.code == 4
    assert f"kubectl rollout resume deployment/web -n {bad_rollout.namespace}" in refused.out
    assert f"rollback-watchdog rollback {bad_rollout.namespace}/web" in refused.out
    assert live_image(bad_rollout) == "v3"
    forced = watchdog.rollback("--force", "--reason=the pause is mine")
    assert forced.code == 0, forced
    assert "forced past paused" in forced.out
    assert "paused" not in bad_rollout.get("deployments", "web")["spec"]


def test_a_hold_is_refused_until_it_ends(bad_rollout: Cluster, watchdog: Command) -> None:
    bad_rollout.kubectl("annotate", "deployment/web", "rollback-watchdog.io/hold=until=2999-01-01T00:00:00Z;load test")
    bad_rollout.wait(lambda: observed(bad_rollout.get("deployments", "web")))
    refused = watchdog.rollback("--output=json")
    assert (refused.code, refused.json["guard"]) == (4, "hold")
    assert "load test" in refused.json["detail"]
    bad_rollout.kubectl(
        "annotate", "--overwrite", "deployment/web", "rollback-watchdog.io/hold=until=2020-01-01T00:00:00Z;over"
    )
    assert watchdog.rollback().code == 0


def test_a_workload_under_gitops_is_refused_with_the_cure_and_undone_where_a_policy_says_so(
    cluster: Cluster, watchdog: Command, tmp_path: Path
) -> None:
    cluster.create_deployment("web", annotations={"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:x/web"})
    cluster.wait_complete("web")
    cluster.set_image("web", "v2")
    cluster.wait_complete("web")
    refused = watchdog.rollback("--output=json")
    assert (refused.code, refused.json["guard"]) == (4, "gitops")
    assert "argocd app set shop --sync-policy none" in refused.json["detail"]
    policy = tmp_path / "config.toml"
    policy.write_text(f'[[policies]]\nname = "shop"\nnamespaces = ["{cluster.namespace}"]\ngitops = "act"\n')
    assert watchdog.rollback(f"--config={policy}").code == 0


def test_recreate_is_refused_because_it_means_downtime(cluster: Cluster, watchdog: Command) -> None:
    cluster.create_deployment("web", strategy={"type": "Recreate"})
    cluster.wait_complete("web")
    cluster.set_image("web", "v2")
    cluster.wait_complete("web")
    assert watchdog.rollback("--output=json").json["guard"] == "recreate"
    assert watchdog.rollback("--force", "--reason=downtime is fine").code == 0
    assert live_image(cluster) == "v1"


def test_the_first_revision_has_nothing_to_go_back_to(cluster: Cluster, watchdog: Command) -> None:
    cluster.create_deployment("web")
    cluster.wait_complete("web")
    assert watchdog.rollback("--output=json").json["guard"] == "no-target"


def test_without_a_history_an_undo_works_until_the_rollout_is_complete(cluster: Cluster, watchdog: Command) -> None:
    cluster.create_deployment("web", image="v1", revisionHistoryLimit=0)
    cluster.wait_complete("web")
    cluster.set_image("web", "v2", template_annotations={"sim/mode": "never-ready"})
    cluster.wait(lambda: len(cluster.replicasets("web")) == 2)
    assert watchdog.rollback().code == 0
    assert live_image(cluster) == "v1"
    cluster.set_image("web", "v3", template_annotations={"sim/mode": None})
    cluster.wait_complete("web")
    cluster.wait(lambda: len(cluster.replicasets("web")) == 1)
    refused = watchdog.rollback("--output=json")
    assert refused.json["guard"] == "no-target"
    assert "revisionHistoryLimit is 0" in refused.json["detail"]


def test_a_restart_is_nothing_to_undo(cluster: Cluster, watchdog: Command) -> None:
    cluster.create_deployment("web")
    cluster.wait_complete("web")
    cluster.kubectl("rollout", "restart", "deployment/web")
    cluster.wait_complete("web")
    assert watchdog.rollback("--output=json").json["guard"] == "nothing-to-undo"


def test_a_replicaset_of_another_owner_is_no_target(bad_rollout: Cluster, watchdog: Command) -> None:
    # Not another Deployment: its controller would release what its selector does not match, and ours adopt it again.
    other = bad_rollout.create("configmaps", {"metadata": {"name": "other"}})["metadata"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": other["uid"], "controller": True}
    second = bad_rollout.replicasets("web")[1]["metadata"]["name"]
    bad_rollout.patch("replicasets", second, [{"op": "replace", "path": "/metadata/ownerReferences/0", "value": owner}])
    assert watchdog.rollback().code == 0
    assert live_image(bad_rollout) == "v1"


def test_missing_and_doubled_revision_numbers_go_where_kubectl_goes_or_are_passed_over(
    bad_rollout: Cluster, watchdog: Command
) -> None:
    first, second, _ = (item["metadata"]["name"] for item in bad_rollout.replicasets("web"))
    path = "/metadata/annotations/deployment.kubernetes.io~1revision"
    bad_rollout.patch("replicasets", first, [{"op": "replace", "path": path, "value": "2"}])
    dry = watchdog.rollback("--dry-run", "--output=json").json
    assert dry["to"]["replicaset"] == min((first, second), key=lambda name: created(bad_rollout, name))
    bad_rollout.patch("replicasets", second, [{"op": "remove", "path": path}])
    bad_rollout.patch("replicasets", first, [{"op": "replace", "path": path, "value": "1"}])
    assert watchdog.rollback("--output=json").json["to"]["replicaset"] == first


def test_the_targets_own_change_cause_comes_back(cluster: Cluster, watchdog: Command) -> None:
    cluster.create_deployment("web", image="v1", annotations={CAUSE: "ship v1"})
    cluster.wait_complete("web")
    cluster.patch(
        "deployments",
        "web",
        {
            "metadata": {"annotations": {CAUSE: "ship v2", "team": "shop"}},
            "spec": {"template": {"spec": {"containers": [{"name": "app", "image": "v2"}]}}},
        },
    )
    cluster.wait_complete("web")
    assert watchdog.rollback().code == 0
    annotations = cluster.get("deployments", "web")["metadata"]["annotations"]
    assert annotations[CAUSE] == "ship v1"
    assert annotations["team"] == "shop"  # kubectl's undo would have wiped it


def test_condemned_revisions_are_passed_over_refused_by_name_and_absolved(
    bad_rollout: Cluster, watchdog: Command
) -> None:
    second = bad_rollout.replicasets("web")[1]["metadata"]
    mark = f"rollback-watchdog.io/condemned={second['labels']['pod-template-hash']}:web-2-00000000"
    bad_rollout.kubectl("annotate", f"replicaset/{second['name']}", mark)
    assert "condemned by web-2-00000000" in watchdog.history().out
    assert watchdog.rollback("--dry-run", "--output=json").json["to"]["revision"] == 1
    refused = watchdog.rollback("--to-revision=2", "--output=json").json
    assert refused["guard"] == "condemned"
    assert "--absolve 2" in refused["detail"]
    absolved = watchdog.history("--absolve=2")
    assert absolved.code == 0
    assert "revision 2 is absolved of incident web-2-00000000" in absolved.out
    assert watchdog.rollback("--output=json").json["to"]["revision"] == 2


def test_the_history_shows_what_kubectl_shows_and_what_is_live(bad_rollout: Cluster, watchdog: Command) -> None:
    answer = watchdog.history("--output=json").json
    ours = [(item["revision"], item["cause"]) for item in reversed(answer["revisions"])]
    listed = bad_rollout.kubectl("rollout", "history", "deployment/web").splitlines()[2:]
    theirs = [(int(number), cause.strip()) for number, cause in (line.split(None, 1) for line in listed if line)]
    assert ours == theirs
    assert [item["live"] for item in answer["revisions"]] == [True, False, False]
    assert watchdog.history("--absolve=9").code == 2


def test_a_workload_that_does_not_exist_is_an_error_of_usage(watchdog: Command, web: WorkloadRef) -> None:
    done = watchdog.rollback()
    assert done.code == 2
    assert f"get deployments {web}: NotFound" in done.err


def test_a_caller_without_rights_cannot_reach_and_is_told_what_is_missing(
    plane: ControlPlane, cluster: Cluster, web: WorkloadRef
) -> None:
    cluster.create_deployment("web")
    rule = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}
    reader = Command(cluster.service_account("reader", rule), web)
    done = reader.rollback()
    assert done.code == 3
    assert f"list replicasets {cluster.namespace}: Forbidden" in done.err
    checked = reader("check", "--online", f"--namespace={cluster.namespace}", "--output=json")
    assert checked.code == 2
    lost = {f"{right['verb']} {right['resource']}" for right in checked.json["rights"] if not right["allowed"]}
    assert "patch deployments" in lost
    assert "get deployments" not in lost


def test_a_caller_who_may_not_watch_is_told_the_truth_all_the_same(bad_rollout: Cluster, web: WorkloadRef) -> None:
    rules = [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]},
        {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["list"]},
    ]
    done = Command(bad_rollout.service_account("operator", *rules), web).rollback("--output=json")
    assert (done.code, done.json["outcome"]) == (0, "rolled-back"), done
    assert [line["event"] for line in done.log if line["level"] == "warning"] == ["event-not-written"] * 2


def test_pods_that_cannot_be_created_are_told_with_where_to_look(cluster: Cluster, watchdog: Command) -> None:
    cluster.create("serviceaccounts", {"metadata": {"name": "app"}})
    cluster.create_deployment("web", image="v1")
    for account in ("app", "default"):
        cluster.patch("deployments", "web", {"spec": {"template": {"spec": {"serviceAccountName": account}}}})
        cluster.wait_complete("web")
    cluster.delete("serviceaccounts", "app")
    done = watchdog.rollback("--timeout=3s")
    assert done.code == 4
    assert "pods cannot be created: FailedCreate; see kubectl describe replicaset web-" in done.out


def test_the_shipped_role_passes_the_online_check(watchdog: Command, namespace: str) -> None:
    done = watchdog("check", "--online", f"--namespace={namespace}", "--output=json")
    assert done.code == 0, done
    assert all(right["allowed"] for right in done.json["rights"])


def observed(deployment: Json) -> bool:
    """Whether the controller has seen the newest generation."""
    return bool(deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"])


def created(cluster: Cluster, replicaset: str) -> tuple[str, str]:
    """Age and name, in kubectl's order."""
    metadata = cluster.get("replicasets", replicaset)["metadata"]
    return metadata["creationTimestamp"], metadata["name"]
