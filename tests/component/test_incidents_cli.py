"""`incidents`, `approve` and `dismiss`, as whoever calls them sees them."""

import datetime as dt
import json
from pathlib import Path

import pytest
from aiohttp import web

from tests.component import test_cli
from tests.component.fake_api import FakeApi, good, page, status
from tests.component.test_cli import WEB, Run, configure, runner
from tests.unit.builders import NOW, UID, Json, Scene, hash_of, history
from watchdog.decide import marks
from watchdog.decide.record import DecisionCounts, Planned, Record, SignalUsed, State, VerdictSeen, Written
from watchdog.model import Action, Guard, IncidentId, Mode, Objection, Outcome, Rollout, Topology
from watchdog.objects import WorkloadRef
from watchdog.records import form

elsewhere = test_cli.elsewhere
MAPS = "/api/v1/namespaces/rollback-watchdog/configmaps"
ASKED = Rollout(WorkloadRef("shop", "web"), UID, 3, hash_of("v3"))


@pytest.fixture
def run(kubeconfig: Path) -> Run:
    return runner(kubeconfig)


@pytest.fixture(autouse=True)
def no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POD_NAMESPACE", raising=False)


def record(rollout: Rollout = ASKED, *, started: dt.datetime = NOW, **fields: object) -> Record:
    base = Record(
        id=rollout.incident,
        rollout=rollout,
        policy="web",
        policy_digest="d",
        topology=Topology.ROLLING,
        mode=Mode.APPROVE,
        action=Action.UNDO,
        started=started,
    )
    return type(base)(**{name: getattr(base, name) for name in base.__struct_fields__} | fields)


def asking() -> Record:
    numbers = DecisionCounts(candidate_bad=40, candidate_total=500, stable_bad=1, stable_total=400)
    return record(
        state=State.ASKING,
        asked=NOW + dt.timedelta(seconds=62),
        images={"web": "registry.example/web:v3"},
        signals=(SignalUsed("errors", "bad_total", "all_total"),),
        verdicts=(VerdictSeen(NOW + dt.timedelta(seconds=60), "breach", "8 % \x1b[31mred", "threshold", "errors"),),
        objections=(Objection(Guard.MODE, "approve", NOW + dt.timedelta(seconds=61), asks=True),),
        plan=Planned(Action.UNDO, 3, hash_of("v3"), 2, hash_of("v2"), "threshold", numbers),
    )


def ended() -> Record:
    rollout = Rollout(WorkloadRef("shop", "api"), UID, 7, hash_of("v7"))
    return record(
        rollout,
        started=NOW + dt.timedelta(hours=1),
        state=State.ENDED,
        outcome=Outcome.RECOVERED,
        detail="rolled back 7 → 6",
        ended=NOW + dt.timedelta(hours=2),
        writes=(Written(NOW + dt.timedelta(minutes=70), "rolled back 7 → 6"),),
    )


def stored(*records: Record, api: FakeApi, at: str = MAPS) -> None:
    items = [
        {"metadata": {"name": f"rollback-watchdog-{each.id}"}, "data": {"record.json": form.write(each)}}
        for each in records
    ]
    api.answer("GET", at, page(*items))
    for item in items:
        api.answer("GET", f"{at}/{item['metadata']['name']}", good(item))


async def test_incidents_lists_every_record_the_newest_first(run: Run, api: FakeApi) -> None:
    stored(asking(), ended(), api=api)
    ran = await run("incidents")
    header, *rows = [line.split() for line in ran.out.splitlines()]
    assert ran.code == 0
    assert header == ["ID", "WORKLOAD", "STATE", "OUTCOME", "CAUSE", "STARTED"]
    assert rows == [
        [ended().id, "shop/api", "ended", "recovered", "2026-03-01T13:00:00Z"],
        [asking().id, "shop/web", "asking", "threshold", "2026-03-01T12:00:00Z"],
    ]


async def test_incidents_in_json_is_one_object(run: Run, api: FakeApi) -> None:
    stored(asking(), api=api)
    ran = await run("--output", "json", "incidents")
    assert ran.json == {
        "schema": 1,
        "command": "incidents",
        "incidents": [
            {
                "id": asking().id,
                "workload": "shop/web",
                "state": "asking",
                "outcome": None,
                "cause": "threshold",
                "started": "2026-03-01T12:00:00Z",
            }
        ],
    }


async def test_no_records_are_an_empty_list(run: Run, api: FakeApi) -> None:
    stored(api=api)
    ran = await run("incidents", "--output", "json")
    assert (ran.code, ran.json["incidents"]) == (0, [])


async def test_one_incident_tells_its_story_in_the_order_of_time(run: Run, api: FakeApi) -> None:
    stored(asking(), api=api)
    ran = await run("incidents", asking().id)
    assert ran.out.splitlines() == [
        f"{asking().id}: asking",
        f"  workload  shop/web, revision 3 ({hash_of('v3')})",
        "  policy    web: rolling, approve, undo",
        "  image     web: registry.example/web:v3",
        "  signal    errors: bad_total of all_total",
        "  plan      undo 3 → 2 because of threshold; 40 of 500 failed, stable 1 of 400",
        "  2026-03-01T12:00:00Z  rollout began",
        "  2026-03-01T12:01:00Z  errors breach: 8 % \\x1b[31mred",
        "  2026-03-01T12:01:01Z  mode: approve (asks instead of acting)",
        "  2026-03-01T12:01:02Z  a person is asked",
    ]


async def test_one_incident_in_json_is_the_whole_record(run: Run, api: FakeApi) -> None:
    stored(ended(), api=api)
    ran = await run("incidents", ended().id, "--output", "json")
    (found,) = ran.json["incidents"]
    assert found.items() >= json.loads(form.write(ended())).items()
    assert (found["vetoes"], found["plan"]) == ([], None), "what is empty is there too"


@pytest.mark.parametrize("command", ["incidents", "approve", "dismiss"])
@pytest.mark.parametrize("incident", ["web-9-00000000", "../secrets"])
async def test_an_unknown_id_ends_with_2(run: Run, api: FakeApi, command: str, incident: str) -> None:
    ran = await run(command, incident)
    assert ran.code == 2
    assert ran.err == f"Error: there is no record {incident!r}; see: rollback-watchdog incidents\n"
    assert all(".." not in seen.path for seen in api.seen)


@pytest.mark.parametrize(
    ("configured", "pod", "option", "namespace"),
    [
        ("", "", "", "rollback-watchdog"),
        ("", "own", "", "own"),
        ('records.namespace = "set"', "own", "", "set"),
        ('records.namespace = "set"', "own", "named", "named"),
    ],
)
async def test_records_are_looked_for_where_the_service_keeps_them(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch, configured: str, pod: str, option: str, namespace: str
) -> None:
    configure(configured)
    monkeypatch.setenv("POD_NAMESPACE", pod)
    stored(asking(), api=api, at=f"/api/v1/namespaces/{namespace}/configmaps")
    ran = await run("incidents", *(["-n", option] if option else []))
    assert ran.code == 0, ran
    assert asking().id in ran.out


# -- the human answer --------------------------------------------------------------------------------------------------


@pytest.fixture
def scene(api: FakeApi) -> Scene:
    """The workload that is asked about, and the record that asks."""
    scene = history("v1", "v2", "v3")

    async def patch(request: web.Request) -> web.StreamResponse:
        scene.deployment = scene.after(await request.read())
        return await good(scene.deployment)(request)

    api.answer("PATCH", WEB, patch)
    stored(asking(), ended(), api=api)
    return scene


@pytest.mark.parametrize("verb", ["approve", "dismiss"])
async def test_an_answer_is_written_on_the_deployment_for_this_incident_only(
    run: Run, scene: Scene, verb: marks.Verb
) -> None:
    ran = await run(verb, asking().id)
    assert ran.code == 0, ran
    assert ran.out.startswith(f"{asking().id}: {verb} is written on shop/web; ")
    assert scene.annotations["rollback-watchdog.io/answer"] == f"{asking().id}={verb}"
    assert marks.read_answer(scene.annotations, asking().id) == verb
    assert marks.read_answer(scene.annotations, IncidentId("web-4-00000000")) is None


async def test_an_answer_is_about_the_very_deployment_that_was_judged(run: Run, api: FakeApi, scene: Scene) -> None:
    await run("approve", asking().id)
    (patch,) = api.asked("PATCH", WEB)
    operations: list[Json] = json.loads(patch.body)
    assert operations[0] == {"op": "test", "path": "/metadata/uid", "value": UID}
    assert [each["op"] for each in operations] == ["test", "add"]


@pytest.mark.parametrize("verb", ["approve", "dismiss"])
async def test_whoever_is_not_asked_is_refused(run: Run, api: FakeApi, scene: Scene, verb: str) -> None:
    ran = await run(verb, ended().id, "--output", "json")
    assert ran.code == 4
    assert ran.json == {"schema": 1, "command": verb, "incident": ended().id, "answered": False, "state": "ended"}
    assert (
        await run(verb, ended().id)
    ).out == f"{ended().id}: nobody is asked, it is recovered. Nothing was changed.\n"
    assert not [seen for seen in api.seen if seen.method == "PATCH"]


async def test_whoever_may_not_patch_the_deployment_may_not_answer(run: Run, api: FakeApi, scene: Scene) -> None:
    api.answer("PATCH", WEB, status(403, "Forbidden"))
    ran = await run("approve", asking().id)
    assert (ran.code, ran.out) == (4, "")
    assert ran.err == "Error: patch deployments shop/web: Forbidden\n"


@pytest.mark.parametrize("text", ["", "approve", "web-3=approved", "web-3=APPROVE", "web-33=approve", "=approve"])
def test_what_is_no_answer_to_this_incident_is_none(text: str) -> None:
    assert marks.read_answer({marks.ANSWER: text}, IncidentId("web-3")) is None
