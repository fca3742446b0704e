"""When two pod templates are one revision, and how their difference is shown."""

import copy
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.unit.builders import Json, history, managed, raw, template
from watchdog.decide import templates
from watchdog.objects import HASH_LABEL, Deployment

Edit = Callable[[Json], Any]


def edited(edit: Edit, *, version: str = "v1") -> msgspec.Raw:
    changed = copy.deepcopy(template(version))
    edit(changed)
    return raw(changed)


def container(document: Json) -> Json:
    found: Json = document["spec"]["containers"][0]
    return found


V1 = raw(template("v1"))


# -- equality ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda t: t["metadata"]["labels"].update({HASH_LABEL: "5d4f8c7b9"}), id="hash label"),
        pytest.param(lambda t: t["metadata"].update(creationTimestamp=None), id="null"),
        pytest.param(lambda t: t["metadata"].update(annotations={}), id="empty annotations"),
        pytest.param(lambda t: t["spec"].update(nodeSelector={}), id="empty node selector"),
        pytest.param(lambda t: t["spec"].update(initContainers=[]), id="empty list"),
        pytest.param(lambda t: container(t)["resources"].update(requests={}), id="empty requests"),
        pytest.param(lambda t: t["spec"].update(restartPolicy=t["spec"].pop("restartPolicy")), id="key order"),
    ],
)
def test_what_go_does_not_tell_apart_is_one_revision(edit: Edit) -> None:
    assert templates.same(V1, edited(edit))
    assert templates.changes(V1, edited(edit)) == ()


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda t: container(t).update(image="registry.example/web:v2"), id="image"),
        pytest.param(lambda t: t["metadata"].update(annotations={"restarted": "yes"}), id="annotation"),
        pytest.param(lambda t: t["metadata"]["labels"].update(tier="front"), id="label"),
        pytest.param(lambda t: t["spec"].update(volumes=[{"name": "tmp", "emptyDir": {}}]), id="volume"),
        pytest.param(lambda t: container(t).update(securityContext={}), id="empty struct"),
        pytest.param(lambda t: t["spec"].update(aFieldOfTomorrow=True), id="unknown field"),
    ],
)
def test_what_the_api_server_stores_differently_is_another_revision(edit: Edit) -> None:
    assert not templates.same(V1, edited(edit))
    assert templates.changes(V1, edited(edit)) != ()


def test_an_empty_volume_source_is_not_a_missing_one() -> None:
    with_source = edited(lambda t: t["spec"].update(volumes=[{"name": "tmp", "emptyDir": {}}]))
    without = edited(lambda t: t["spec"].update(volumes=[{"name": "tmp"}]))
    assert not templates.same(with_source, without)


def test_a_template_with_no_label_but_the_hash_equals_one_without_labels() -> None:
    bare, hashed = (
        edited(lambda t: t.update(metadata={})),
        edited(lambda t: t.update(metadata={"labels": {HASH_LABEL: "1"}})),
    )
    assert templates.same(bare, hashed)


QUANTITIES = ["1Gi", "1073741824", "1e3", "1k", "1000", "1000.0", "1000000m", "0", "-0", "0.0", "0m", "1", "much", 1000]


def test_templates_are_one_revision_exactly_where_their_quantities_are_equal() -> None:
    """Whether they were compared before or not."""
    versions = []
    for quantity in QUANTITIES:
        changed = copy.deepcopy(template("v1"))
        container(changed)["resources"]["limits"] = {"memory": quantity}
        versions.append(raw(changed))
    for one, other in 2 * [*itertools.product(versions, repeat=2)]:
        assert templates.same(one, other) == (templates.parse(one) == templates.parse(other))


def test_annotations_alone_do_not_make_a_version() -> None:
    restarted = raw(template("v1", annotations={"kubectl.kubernetes.io/restartedAt": "now"}))
    assert templates.differ_only_in_annotations(V1, restarted)
    assert templates.differ_only_in_annotations(restarted, V1)


def test_annotations_beside_a_new_image_do() -> None:
    assert not templates.differ_only_in_annotations(V1, raw(template("v2", annotations={"restarted": "yes"})))


def test_a_label_makes_a_version() -> None:
    assert not templates.differ_only_in_annotations(V1, edited(lambda t: t["metadata"]["labels"].update(tier="front")))


def test_the_annotations_of_the_pods_are_found() -> None:
    assert templates.annotations(raw(template("v1", annotations={"a": "b"}))) == {"a": "b"}
    assert templates.annotations(V1) == {}


def test_the_labels_of_the_pods_are_found_without_the_one_of_the_replicaset() -> None:
    hashed = edited(lambda t: t["metadata"].update(labels={"app": "web", HASH_LABEL: "1", "none": None}))
    assert templates.labels(hashed) == {"app": "web"}
    assert templates.labels(edited(lambda t: t.pop("metadata"))) == {}


def test_images_are_named_by_container_and_those_of_init_containers_apart() -> None:
    found = templates.images(edited(lambda t: t["spec"].update(initContainers=[{"name": "web", "image": "setup:1"}])))
    assert found == {"web": "registry.example/web:v1", "init:web": "setup:1"}


# -- differences -------------------------------------------------------------------------------------------------------


def test_a_new_image_is_shown_with_both_values() -> None:
    assert "spec.containers[web].image: registry.example/web:v1 -> registry.example/web:v2" in templates.changes(
        V1, raw(template("v2"))
    )


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        pytest.param(
            lambda t: container(t)["env"][0].update(value="hunter2"),
            "spec.containers[web].env[PASSWORD].value",
            id="variable",
        ),
        pytest.param(
            lambda t: container(t).update(args=["--token=hunter2"]), "spec.containers[web].args", id="unnamed list"
        ),
        pytest.param(
            lambda t: t["metadata"].update(annotations={"token": "hunter2"}), "metadata.annotations", id="annotation"
        ),
        pytest.param(
            lambda t: t["spec"]["containers"].append({"name": "side", "args": ["hunter2"]}),
            "spec.containers[side]",
            id="container",
        ),
        pytest.param(lambda t: container(t).pop("env"), "spec.containers[web].env", id="removed"),
    ],
)
def test_of_everything_else_only_the_path_is_shown(edit: Edit, path: str) -> None:
    assert templates.changes(V1, edited(edit)) == (path,)


def test_an_annotation_that_is_named_like_an_image_keeps_its_values_to_itself() -> None:
    one, other = (raw(template("v1", annotations={"vault.example/db.image": text})) for text in ("hunter1", "hunter2"))
    shown = " ".join(templates.changes(one, other))
    assert "vault.example/db.image" in shown
    assert "hunter" not in shown


def test_a_changed_order_of_variables_is_a_change_that_is_shown() -> None:
    # It is a new revision, because a variable may refer to those before it.
    names = [{"name": name, "value": "1"} for name in "AB"]
    one, other = (
        edited(lambda t: container(t).update(env=names)),
        edited(lambda t: container(t).update(env=names[::-1])),
    )
    assert not templates.same(one, other)
    assert templates.changes(one, other) == ("spec.containers[web].env",)


def test_changes_are_sorted() -> None:
    shown = templates.changes(V1, edited(lambda t: t["spec"].update(z=1, a=1, m=1)))
    assert shown == ("spec.a", "spec.m", "spec.z")


# -- raw bytes ---------------------------------------------------------------------------------------------------------


def test_a_decoded_deployment_does_not_keep_the_answer_alive_that_it_came_in() -> None:
    scene = history("v1")
    scene.deployment["metadata"]["managedFields"] = [managed("kubectl")]
    answer = json.dumps(scene.deployment).encode()
    before = sys.getrefcount(answer)
    deployment = msgspec.json.decode(answer, type=Deployment)
    assert sys.getrefcount(answer) == before, "a field is a window into the whole answer"
    assert deployment.metadata.managed_fields[0].manager == "kubectl"
