"""Which Deployments are whose, and what a breach of each leads to."""

from typing import Any

import pytest

from tests.unit.builders import decoded, history
from watchdog.config import Config, parse
from watchdog.engine.fleet import Fleet, Match, WorkloadRole, match_all
from watchdog.engine.new_record import action_of, mode_of
from watchdog.model import Action, Mode
from watchdog.objects import Deployment, WorkloadRef
from watchdog.ports import Changed, Deleted, Listed


def deployment(
    name: str, *, namespace: str = "shop", labels: dict[str, str] | None = None, **metadata: Any
) -> Deployment:
    document = history("v1").deployment
    document["metadata"] |= {"name": name, "namespace": namespace, "uid": f"uid-{name}", **metadata}
    document["spec"]["template"]["metadata"]["labels"] = {"app": name, **(labels or {})}
    return decoded(document, Deployment)


def config(*policies: str) -> Config:
    return parse("\n".join(f"[[policies]]\n{text}" for text in policies))


ALL = 'name = "all"\nnamespaces = ["shop"]\n'
CANARY = 'name = "agent"\nnamespaces = ["shop"]\nstable = "agent"\ncandidate = "agent-canary"\n'


def names(policies: Config, *there: Deployment) -> tuple[dict[str, WorkloadRole], tuple[str, ...]]:
    found, problems = match_all(policies.policies, there)
    return {ref.name: match.side for ref, match in found.items()}, problems


def test_without_names_a_policy_means_all_but_the_watchdog_itself() -> None:
    found, problems = names(
        config(ALL),
        deployment("web"),
        deployment("api"),
        deployment("rollback-watchdog"),
        deployment("x", namespace="other"),
    )
    assert (found, problems) == ({"web": WorkloadRole.ALONE, "api": WorkloadRole.ALONE}, ())


def test_named_workloads_are_meant_and_no_others() -> None:
    found, _ = names(config(ALL + 'workloads = ["web"]'), deployment("web"), deployment("api"))
    assert found == {"web": WorkloadRole.ALONE}


def test_an_opt_in_policy_means_what_is_annotated_with_its_name() -> None:
    asked = deployment("web", annotations={"rollback-watchdog.io/policy": "all"})
    other = deployment("api", annotations={"rollback-watchdog.io/policy": "some"})
    assert names(config(ALL + "opt_in = true"), asked, other)[0] == {"web": WorkloadRole.ALONE}


def test_a_canary_has_two_sides_by_name_or_by_selector() -> None:
    both = (deployment("agent"), deployment("agent-canary", labels={"track": "canary"}))
    sides = {"agent": WorkloadRole.STABLE, "agent-canary": WorkloadRole.CANDIDATE}
    assert names(config(CANARY), *both) == (sides, ())
    assert names(config(CANARY.replace('"agent-canary"', '"track=canary"')), *both) == (sides, ())


def test_a_selector_must_match_exactly_one() -> None:
    two = [deployment(name, labels={"track": "canary"}) for name in ("one", "two")]
    found, problems = names(config(CANARY.replace('"agent-canary"', '"track=canary"')), deployment("agent"), *two)
    assert found == {}
    assert any("matches one, two in shop; must be one" in problem for problem in problems)


def test_a_side_that_is_missing_is_told() -> None:
    found, problems = names(config(CANARY), deployment("agent"))
    assert found == {}
    assert "policy 'agent': there is no candidate Deployment in shop" in problems


def test_a_policy_that_matches_nothing_is_told() -> None:
    assert names(config(ALL), deployment("x", namespace="other")) == ({}, ("policy 'all' matches nothing in shop",))


def test_a_workload_of_two_policies_is_left_alone_and_both_are_named() -> None:
    wide = CANARY.replace('"agent-canary"', '"app=web"')
    found, problems = names(config(ALL + 'workloads = ["web"]', wide), deployment("web"), deployment("agent"))
    assert "web" not in found
    assert any("'all' and 'agent'" in problem for problem in problems)


@pytest.mark.parametrize(
    "metadata",
    [
        {"annotations": {"rollout.argoproj.io/workload-generation": "3"}},
        {"ownerReferences": [{"uid": "u", "kind": "Canary", "name": "web", "controller": True}]},
        {"ownerReferences": [{"uid": "u", "kind": "Rollout", "name": "web", "controller": True}]},
    ],
)
def test_what_another_tool_undoes_is_not_watched_and_that_is_told(metadata: dict[str, Any]) -> None:
    found, problems = names(config(ALL), deployment("web", **metadata), deployment("api"))
    assert found == {"api": WorkloadRole.ALONE}
    assert "shop/web: " in problems[0]


def test_a_fleet_is_complete_once_every_namespace_was_listed_or_may_not_be() -> None:
    fleet = Fleet(config('name = "x"\nnamespaces = ["shop", "other"]').policies)
    assert not fleet.complete
    assert fleet.take("shop", Listed((deployment("web"),))) == (WorkloadRef("shop", "web"),)
    assert not fleet.complete
    fleet.give_up("other")
    assert fleet.complete
    fleet.take("other", Listed(()))
    assert fleet.denied == set()


def test_a_fleet_follows_what_comes_changes_and_goes() -> None:
    fleet = Fleet(config(ALL).policies)
    web = WorkloadRef("shop", "web")
    fleet.take("shop", Listed(()))
    fleet.take("shop", Changed(deployment("web")))
    assert fleet.match(web) is not None
    fleet.take("shop", Deleted(deployment("web")))
    assert (fleet.match(web), fleet.deployments) == (None, {})


def test_a_fleet_that_is_told_one_by_one_knows_what_it_would_know_from_a_list() -> None:
    """Sides come and go, others join a policy and leave it, and the problems are those of the moment."""
    settings = config(
        CANARY.replace('"agent-canary"', '"track=canary"').replace('"agent"\nc', '"app=agent"\nc'),
        ALL.replace('"all"', '"some"') + 'workloads = ["web", "agent"]',
        'name = "colours"\nnamespaces = ["shop"]\nservice = "pay"\nworkloads = ["blue", "green"]\nrule = "threshold"\n',
    )
    steps: list[Changed | Deleted] = [
        Changed(deployment("agent")),
        Changed(deployment("one", labels={"track": "canary"})),
        Changed(deployment("web")),
        Changed(deployment("blue")),
        Changed(deployment("green")),
        Changed(deployment("two", labels={"track": "canary"})),
        Changed(deployment("one", labels={"track": "none"})),
        Changed(deployment("web", annotations={"rollout.argoproj.io/workload-generation": "3"})),
        Deleted(deployment("blue")),
        Deleted(deployment("agent")),
    ]
    fleet = Fleet(settings.policies)
    fleet.take("shop", Listed(()))
    fleet.take_services("shop", {})
    for step in steps:
        fleet.take("shop", step)
        found, problems = match_all(settings.policies, fleet.deployments.values())
        assert fleet.matched() == found
        assert {ref: match for ref in fleet.deployments if (match := fleet.match(ref))} == found
        assert fleet.problems == problems


def test_of_two_colours_a_service_affects_both_and_of_one_none() -> None:
    fleet = Fleet(
        config(
            'name = "c"\nnamespaces = ["shop"]\nservice = "pay"\nworkloads = ["blue", "green"]\nrule = "threshold"'
        ).policies
    )
    fleet.take("shop", Listed((deployment("blue"), deployment("web"))))
    assert fleet.take_services("shop", {}) == ()
    fleet.take("shop", Changed(deployment("green")))
    assert fleet.take_services("shop", {}) == (WorkloadRef("shop", "blue"), WorkloadRef("shop", "green"))


@pytest.mark.parametrize(
    ("text", "side", "action"),
    [
        (CANARY, WorkloadRole.CANDIDATE, Action.SCALE_DOWN),
        (CANARY, WorkloadRole.STABLE, Action.UNDO),
        (CANARY + 'action = "scale-down"', WorkloadRole.STABLE, Action.UNDO),
        (CANARY + 'action = "undo"', WorkloadRole.CANDIDATE, Action.UNDO),
        (CANARY + 'action = "pause"', WorkloadRole.STABLE, Action.PAUSE),
        (ALL, WorkloadRole.ALONE, Action.UNDO),
    ],
)
def test_only_a_canary_is_ever_scaled_down(text: str, side: WorkloadRole, action: Action) -> None:
    assert action_of(Match(config(text).policies[0], side)) is action


@pytest.mark.parametrize(
    ("said", "mode"),
    [(None, Mode.APPROVE), ("observe", Mode.OBSERVE), ("enforce", Mode.APPROVE), ("enfroce", Mode.OBSERVE)],
)
def test_an_annotation_lowers_the_mode_and_never_raises_it(said: str | None, mode: Mode) -> None:
    annotations = {"rollback-watchdog.io/mode": said} if said else {}
    assert mode_of(Mode.APPROVE, deployment("web", annotations=annotations)) is mode
