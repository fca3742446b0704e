"""Random histories of a Deployment, each from its seed, as the JSON that an API server would serve.

Every history begins as the controller would have made it and then gets up to three twists: things that people, other
controllers, upgrades and accidents do to Deployments and ReplicaSets. Which ones it got is part of it, so that a
failure says what it is about.
"""

import copy
import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
CHANGE_CAUSE = "kubernetes.io/change-cause"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
HASH = "pod-template-hash"
CONDEMNED = "rollback-watchdog.io/condemned"
PAUSED_BY = "rollback-watchdog.io/paused-by"
HOLD = "rollback-watchdog.io/hold"
UNKNOWN_FIELD = "fieldOfALaterVersion"

NAME = "web"
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
"""The moment at which these histories are looked at; what they call the future lies after it."""

_UID = "9b7d4a52-0000-4000-8000-000000000001"
_FOREIGN_UID = "9b7d4a52-0000-4000-8000-000000000002"


@dataclass(frozen=True)
class History:
    """A Deployment, all ReplicaSets of its namespace in the order in which they are served, and what is asked."""

    deployment: Json
    replicasets: tuple[Json, ...]
    to_revision: int | None = None
    twists: tuple[str, ...] = ()


@dataclass
class _Draft:
    """A history in the making; the ReplicaSets in the order in which they were made."""

    chance: random.Random
    deployment: Json
    replicasets: list[Json]
    to_revision: int | None = None
    twists: list[str] = field(default_factory=list)

    def any_replicaset(self) -> Json:
        return self.chance.choice(self.replicasets)

    def two_replicasets(self) -> tuple[Json, Json]:
        one, other = self.chance.sample(range(len(self.replicasets)), 2)
        return self.replicasets[one], self.replicasets[other]


def random_history(seed: int) -> History:
    """Make one up; the same seed gives the same one."""
    chance = random.Random(seed)
    draft = _sound_history(chance)
    if chance.random() < 0.3:
        draft.to_revision = chance.randint(1, len(draft.replicasets) + 1)
    for _ in range(chance.choice((0, 1, 1, 2, 2, 3))):
        twist = chance.choice(_TWISTS)
        if len(draft.replicasets) > 1 or twist not in _OF_TWO:
            twist(draft)
            draft.twists.append(twist.__name__.strip("_"))
    served = list(draft.replicasets)
    chance.shuffle(served)
    return History(draft.deployment, tuple(served), draft.to_revision, tuple(draft.twists))


def _sound_history(chance: random.Random) -> _Draft:
    """Revisions 1 to N with some gaps, a minute apart, each template a change of the one before, and the last live."""
    template = _first_template()
    number = 0
    replicasets: list[Json] = []
    for index in range(chance.choice((1, 2, 2, 3, 3, 4, 5, 6))):
        number += chance.choice((1, 1, 1, 2))
        replicasets.append(_replicaset(index, number, template))
        if chance.random() < 0.5:
            replicasets[-1]["metadata"]["annotations"][CHANGE_CAUSE] = f"release {number}"
        template = copy.deepcopy(template)
        chance.choice(_CHANGES)(chance, template)
    live = replicasets[-1]["spec"]["template"]
    deployment: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": NAME,
            "uid": _UID,
            "resourceVersion": "7000",
            "generation": 9,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": NAME},
            "annotations": {REVISION: str(number)},
        },
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": NAME}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": _without_hash(live),
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
        },
        "status": {"observedGeneration": 9, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3},
    }
    if cause := replicasets[-1]["metadata"]["annotations"].get(CHANGE_CAUSE):
        deployment["metadata"]["annotations"][CHANGE_CAUSE] = cause
    return _Draft(chance, deployment, replicasets)


def _replicaset(index: int, revision: int, template: Json) -> Json:
    # Names are in no relation to age: they end in a hash of the template.
    identity = f"{(index + 3) * 2654435761 % 2**32:08x}"
    labels = {"app": NAME, HASH: identity}
    template = copy.deepcopy(template)
    template["metadata"]["labels"][HASH] = identity
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{NAME}-{identity}",
            "uid": f"9b7d4a52-0000-4000-8000-1000{identity}",
            "resourceVersion": str(6000 + index),
            "generation": 2,
            "creationTimestamp": f"2026-01-01T00:{index:02}:00Z",
            "labels": labels,
            "annotations": {
                REVISION: str(revision),
                "deployment.kubernetes.io/desired-replicas": "3",
                "deployment.kubernetes.io/max-replicas": "4",
            },
            "ownerReferences": [_owner(_UID)],
        },
        "spec": {"replicas": 0, "selector": {"matchLabels": dict(labels)}, "template": template},
        "status": {"replicas": 0},
    }


def _owner(uid: str, *, controller: bool = True) -> Json:
    controls: Json = {"controller": True, "blockOwnerDeletion": True} if controller else {}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME, "uid": uid, **controls}


def _without_hash(template: Json) -> Json:
    template = copy.deepcopy(template)
    template["metadata"]["labels"].pop(HASH, None)
    return template


# -- Templates ---------------------------------------------------------------------------------------------------------


def _first_template() -> Json:
    return {
        "metadata": {"labels": {"app": NAME}},
        "spec": {
            "containers": [_container("app", "shop/web:1")],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "schedulerName": "default-scheduler",
        },
    }


def _container(name: str, image: str) -> Json:
    return {
        "name": name,
        "image": image,
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }


Change = Callable[[random.Random, Json], None]


def _change_image(chance: random.Random, template: Json) -> None:
    template["spec"]["containers"][0]["image"] = f"shop/web:{chance.randint(2, 9)}"


def _change_environment(chance: random.Random, template: Json) -> None:
    secret = {"secretKeyRef": {"name": "database", "key": "password"}}
    values: Json = {"value": str(chance.randint(1, 9))} if chance.random() < 0.7 else {"valueFrom": secret}
    template["spec"]["containers"][0]["env"] = [{"name": "SETTING", **values}, {"name": "EMPTY"}]


def _change_resources(chance: random.Random, template: Json) -> None:
    limits = {"cpu": chance.choice(("250m", "1", "2")), "memory": chance.choice(("64Mi", "1Gi", "500M"))}
    template["spec"]["containers"][0]["resources"] = {"limits": limits, "requests": {"cpu": "100m"}}


def _change_init_containers(chance: random.Random, template: Json) -> None:
    template["spec"]["initContainers"] = [_container("migrate", f"shop/migrate:{chance.randint(1, 9)}")]


def _change_probe(chance: random.Random, template: Json) -> None:
    port = chance.choice((8080, "8080", "http"))
    probe = {"httpGet": {"path": "/ready", "port": port, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10}
    template["spec"]["containers"][0]["readinessProbe"] = {**probe, "successThreshold": 1, "failureThreshold": 3}


def _change_volumes(chance: random.Random, template: Json) -> None:
    source: Json = chance.choice(({"emptyDir": {}}, {"configMap": {"name": "web", "defaultMode": 420}}))
    template["spec"]["volumes"] = [{"name": "data", **source}]
    template["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": f"/{chance.randint(1, 9)}"}]


def _change_node_selector(chance: random.Random, template: Json) -> None:
    template["spec"]["nodeSelector"] = {"disk": chance.choice(("ssd", "hdd", "nvme"))}


def _change_security_context(chance: random.Random, template: Json) -> None:
    # A pointer in Go: {} and absent are two things.
    context = chance.choice(({}, {"runAsUser": chance.randint(1, 9)}, None))
    template["spec"]["containers"][0]["securityContext"] = context
    if context is None:
        del template["spec"]["containers"][0]["securityContext"]


def _change_labels(chance: random.Random, template: Json) -> None:
    template["metadata"]["labels"]["track"] = f"t{chance.randint(1, 9)}"


def _change_annotations(chance: random.Random, template: Json) -> None:
    restarted = f"2026-02-{chance.randint(1, 28):02}T00:00:00Z"
    template["metadata"].setdefault("annotations", {})["kubectl.kubernetes.io/restartedAt"] = restarted


_CHANGES: tuple[Change, ...] = (
    _change_image,
    _change_image,
    _change_image,
    _change_environment,
    _change_resources,
    _change_init_containers,
    _change_probe,
    _change_volumes,
    _change_node_selector,
    _change_security_context,
    _change_labels,
    _change_annotations,
)


def _respell(chance: random.Random, template: Json) -> Json:
    """The same template in other words: key order, and null, [] or {} where nothing is said."""
    template = copy.deepcopy(template)
    spec, metadata = template["spec"], template["metadata"]
    for place, key, empties in (
        (metadata, "annotations", (None, {})),
        (metadata, "creationTimestamp", (None,)),
        (spec, "nodeSelector", (None, {})),
        (spec, "volumes", (None, [])),
        (spec, "tolerations", (None, [])),
        (spec, "initContainers", (None, [])),
        (spec, "affinity", (None,)),
        (spec["containers"][0], "env", (None, [])),
        (spec["containers"][0], "args", (None, [])),
        (spec["containers"][0]["resources"], "limits", (None, {})),
        (spec["containers"][0]["resources"], "requests", (None, {})),
    ):
        if key not in place and chance.random() < 0.4:
            place[key] = copy.deepcopy(chance.choice(empties))
    shuffled: Json = _shuffled(chance, template)
    return shuffled


def _shuffled(chance: random.Random, value: Any) -> Any:
    if isinstance(value, dict):
        keys = chance.sample(list(value), len(value))
        return {key: _shuffled(chance, value[key]) for key in keys}
    return [_shuffled(chance, item) for item in value] if isinstance(value, list) else value


# -- Twists ------------------------------------------------------------------------------------------------------------


def _revision_missing(draft: _Draft) -> None:
    draft.any_replicaset()["metadata"].get("annotations", {}).pop(REVISION, None)


def _only_the_live_one_numbered(draft: _Draft) -> None:
    """As after a restore from a backup without annotations."""
    for replicaset in draft.replicasets[:-1]:
        replicaset["metadata"].pop("annotations", None)


def _revision_is_no_number(draft: _Draft) -> None:
    text = draft.chance.choice(("", "none", "1.0", " 2", "2 ", "0x2", "1_0", "٣", "²", "--1"))
    _annotate(draft.any_replicaset(), REVISION, text)


def _revision_zero_or_less(draft: _Draft) -> None:
    _annotate(draft.any_replicaset(), REVISION, draft.chance.choice(("0", "0", "00", "-0", "-1", "-7")))


def _revision_oddly_spelled(draft: _Draft) -> None:
    _annotate(draft.any_replicaset(), REVISION, draft.chance.choice(("007", "+2", "+9", "0000000000000000000003")))


def _revision_huge(draft: _Draft) -> None:
    huge = (str(2**31), str(2**63 - 1), str(2**63), "9" * 40, "9" * 5000)
    _annotate(draft.any_replicaset(), REVISION, draft.chance.choice(huge))


def _revision_duplicate(draft: _Draft) -> None:
    one, other = draft.two_replicasets()
    _annotate(one, REVISION, other["metadata"].get("annotations", {}).get(REVISION, "1"))


def _owner_foreign(draft: _Draft) -> None:
    draft.any_replicaset()["metadata"]["ownerReferences"] = [_owner(_FOREIGN_UID)]


def _orphaned(draft: _Draft) -> None:
    draft.any_replicaset()["metadata"].pop("ownerReferences", None)


def _owner_does_not_control(draft: _Draft) -> None:
    owners = [_owner(_UID, controller=False)]
    if draft.chance.random() < 0.5:
        owners.append(_owner(_FOREIGN_UID))
    draft.any_replicaset()["metadata"]["ownerReferences"] = owners


def _second_owner_controls(draft: _Draft) -> None:
    draft.any_replicaset()["metadata"]["ownerReferences"] = [_owner(_FOREIGN_UID, controller=False), _owner(_UID)]


def _equal_templates(draft: _Draft) -> None:
    one, other = draft.two_replicasets()
    labels = one["spec"]["template"]["metadata"]["labels"]
    template = _without_hash(other["spec"]["template"])
    if HASH in labels:
        template["metadata"]["labels"][HASH] = labels[HASH]
    one["spec"]["template"] = _respell(draft.chance, template) if draft.chance.random() < 0.5 else template


def _equal_ages(draft: _Draft) -> None:
    for replicaset in draft.replicasets:
        if draft.chance.random() < 0.7:
            replicaset["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"


def _older_one_is_live(draft: _Draft) -> None:
    """Somebody set an earlier template again; the controller may not have renumbered its ReplicaSet yet."""
    draft.deployment["spec"]["template"] = _without_hash(draft.any_replicaset()["spec"]["template"])
    if draft.chance.random() < 0.3:
        draft.deployment["metadata"]["generation"] += 1


def _change_not_observed(draft: _Draft) -> None:
    draft.deployment["metadata"]["generation"] += 1
    if draft.chance.random() < 0.7:
        _change_image(draft.chance, draft.deployment["spec"]["template"])


def _template_without_replicaset(draft: _Draft) -> None:
    """As after a change while paused: observed, but no ReplicaSet has been made."""
    draft.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "shop/web:next"
    if draft.chance.random() < 0.5:
        draft.deployment["spec"]["paused"] = True


def _differs_in_annotations_only(draft: _Draft) -> None:
    """As after `kubectl rollout restart`: the newest two differ in what changes nothing in the pods."""
    newest = draft.replicasets[-1]["spec"]["template"]
    template = _without_hash(newest)
    _change_annotations(draft.chance, template)
    if draft.chance.random() < 0.5:
        template["metadata"]["annotations"] = {}
    before = draft.replicasets[-2]["spec"]["template"]
    if HASH in before["metadata"].get("labels", {}):
        template["metadata"]["labels"][HASH] = before["metadata"]["labels"][HASH]
    draft.replicasets[-2]["spec"]["template"] = template


def _spelled_otherwise(draft: _Draft) -> None:
    draft.deployment["spec"]["template"] = _respell(draft.chance, draft.deployment["spec"]["template"])
    for replicaset in draft.replicasets:
        if draft.chance.random() < 0.5:
            replicaset["spec"]["template"] = _respell(draft.chance, replicaset["spec"]["template"])


def _quantities_spelled_otherwise(draft: _Draft) -> None:
    """The same amounts in other formats, which an API server prints as they were written: one template to Go."""
    spellings = (
        {"cpu": "1k", "memory": "1Gi"},
        {"cpu": "1e3", "memory": "1073741824"},
    )
    for item in (draft.deployment, *draft.replicasets[-2:]):
        limits = dict(draft.chance.choice(spellings))
        item["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": limits}


def _labels_absent(draft: _Draft) -> None:
    """Templates whose only label, if any, is the hash."""
    draft.deployment["spec"]["template"]["metadata"] = draft.chance.choice(({}, {"labels": {}}, {"labels": None}))
    for replicaset in draft.replicasets:
        own = replicaset["spec"]["template"]["metadata"].get("labels") or {}
        replicaset["spec"]["template"]["metadata"] = {"labels": {HASH: own[HASH]}} if HASH in own else {}


def _field_of_a_later_version(draft: _Draft) -> None:
    """A field that the server knows and kubectl does not; the last two may differ in nothing else."""
    for replicaset in draft.replicasets:
        replicaset["spec"]["template"]["spec"][UNKNOWN_FIELD] = {"size": draft.chance.randint(1, 3), "names": ["a"]}
    newest = draft.replicasets[-1]["spec"]["template"]["spec"]
    draft.deployment["spec"]["template"]["spec"][UNKNOWN_FIELD] = copy.deepcopy(newest[UNKNOWN_FIELD])
    if len(draft.replicasets) > 1 and draft.chance.random() < 0.3:
        draft.replicasets[-2]["spec"]["template"]["spec"] = {**copy.deepcopy(newest), UNKNOWN_FIELD: {"size": 4}}


def _labels_do_not_match(draft: _Draft) -> None:
    draft.any_replicaset()["metadata"]["labels"]["app"] = draft.chance.choice(("web2", "other"))


def _selector_with_expressions(draft: _Draft) -> None:
    kinds = (
        {"key": "app", "operator": "In", "values": [NAME, "shop"]},
        {"key": "app", "operator": "NotIn", "values": ["other", "web2"]},
        {"key": "tier", "operator": "NotIn", "values": ["back"]},
        {"key": "app", "operator": "Exists"},
        {"key": "legacy", "operator": "DoesNotExist"},
    )
    selector: Json = {"matchExpressions": draft.chance.sample(kinds, draft.chance.randint(1, 3))}
    if draft.chance.random() < 0.5:
        selector["matchLabels"] = {"app": NAME}
    draft.deployment["spec"]["selector"] = selector
    extra = draft.chance.choice(({"legacy": "yes"}, {"tier": "back"}, {"tier": "front"}))
    draft.any_replicaset()["metadata"]["labels"].update(extra)


def _paused(draft: _Draft) -> None:
    draft.deployment["spec"]["paused"] = True


def _paused_by_us(draft: _Draft) -> None:
    _paused(draft)
    about = _hash_of_live(draft) if draft.chance.random() < 0.8 else "another"
    _annotate(draft.deployment, PAUSED_BY, f"{about}:web-3-deadbeef")


def _condemned(draft: _Draft) -> None:
    for replicaset in draft.chance.sample(draft.replicasets, draft.chance.randint(1, len(draft.replicasets))):
        _annotate(replicaset, CONDEMNED, f"{replicaset['metadata']['labels'].get(HASH, '')}:web-3-deadbeef")


def _condemned_one_before(draft: _Draft) -> None:
    before = draft.replicasets[-2]
    _annotate(before, CONDEMNED, f"{before['metadata']['labels'].get(HASH, '')}:web-2-deadbeef")


def _condemnation_of_another(draft: _Draft) -> None:
    text = draft.chance.choice(("another:web-3-deadbeef", "web-3-deadbeef", ":web-3-deadbeef", ""))
    _annotate(draft.any_replicaset(), CONDEMNED, text)


def _no_history_kept(draft: _Draft) -> None:
    draft.deployment["spec"]["revisionHistoryLimit"] = 0
    if draft.chance.random() < 0.5:
        del draft.replicasets[:-1]


def _deployment_without_revision(draft: _Draft) -> None:
    draft.deployment["metadata"].get("annotations", {}).pop(REVISION, None)
    if draft.chance.random() < 0.5:
        draft.deployment["metadata"].pop("annotations", None)


def _other_annotations(draft: _Draft) -> None:
    _annotate(draft.deployment, "team", "shop")
    _annotate(draft.deployment, LAST_APPLIED, '{"kind":"Deployment"}')
    replicaset = draft.any_replicaset()
    _annotate(replicaset, "tool.example/build", "7~8/9")
    _annotate(replicaset, REVISION_HISTORY, "1,3")


def _change_cause(draft: _Draft) -> None:
    _annotate(draft.deployment, CHANGE_CAUSE, "undo of the undo")
    draft.any_replicaset()["metadata"].get("annotations", {}).pop(CHANGE_CAUSE, None)
    _annotate(draft.any_replicaset(), CHANGE_CAUSE, draft.chance.choice(("", "release é/~1")))


def _strategy_recreate(draft: _Draft) -> None:
    draft.deployment["spec"]["strategy"] = {"type": "Recreate"}


def _managed_from_git(draft: _Draft) -> None:
    if draft.chance.random() < 0.5:
        _annotate(draft.deployment, "argocd.argoproj.io/tracking-id", "shop:apps/Deployment:shop/web")
    else:
        draft.deployment["metadata"]["labels"]["kustomize.toolkit.fluxcd.io/name"] = "shop"


def _held(draft: _Draft) -> None:
    text = draft.chance.choice(("until=2026-03-02T00:00:00Z;migration", "until=2026-02-01T00:00:00Z;over", "please"))
    _annotate(draft.deployment, HOLD, text)


def _made_by_hand(draft: _Draft) -> None:
    """A ReplicaSet that a person made and the controller adopted: it has no hash at all."""
    replicaset = draft.any_replicaset()
    for place in (replicaset["metadata"], replicaset["spec"]["template"]["metadata"]):
        (place.get("labels") or {}).pop(HASH, None)


def _hash_on_one_side(draft: _Draft) -> None:
    """A ReplicaSet made from another's YAML, with the hash label only on itself or only in its template."""
    replicaset = draft.any_replicaset()
    place = draft.chance.choice((replicaset["metadata"], replicaset["spec"]["template"]["metadata"]))
    (place.get("labels") or {}).pop(HASH, None)


def _annotate(item: Json, key: str, value: str) -> None:
    item["metadata"].setdefault("annotations", {})[key] = value


def _hash_of_live(draft: _Draft) -> str:
    text: str = draft.replicasets[-1]["metadata"]["labels"].get(HASH, "")
    return text


Twist = Callable[[_Draft], None]

_OF_TWO: tuple[Twist, ...] = (
    _revision_duplicate,
    _equal_templates,
    _differs_in_annotations_only,
    _condemned_one_before,
    _only_the_live_one_numbered,
)
_TWISTS: tuple[Twist, ...] = (
    *_OF_TWO,
    *_OF_TWO,
    _revision_missing,
    _revision_is_no_number,
    _revision_zero_or_less,
    _revision_oddly_spelled,
    _revision_huge,
    _owner_foreign,
    _orphaned,
    _owner_does_not_control,
    _second_owner_controls,
    _equal_ages,
    _older_one_is_live,
    _change_not_observed,
    _template_without_replicaset,
    _spelled_otherwise,
    _spelled_otherwise,
    _quantities_spelled_otherwise,
    _labels_absent,
    _field_of_a_later_version,
    _field_of_a_later_version,
    _labels_do_not_match,
    _selector_with_expressions,
    _selector_with_expressions,
    _paused,
    _paused_by_us,
    _condemned,
    _condemnation_of_another,
    _no_history_kept,
    _deployment_without_revision,
    _other_annotations,
    _change_cause,
    _strategy_recreate,
    _managed_from_git,
    _held,
    _made_by_hand,
    _hash_on_one_side,
)
