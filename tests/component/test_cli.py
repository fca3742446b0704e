"""The command, as whoever calls it sees it: exit codes, one JSON object, and what is said."""

import asyncio
import datetime as dt
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from aiohttp import web
from click.testing import CliRunner

from tests.component.fake_api import (
    FakeApi,
    Stream,
    good,
    hang,
    page,
    raw,
    status,
    write_kubeconfig,
)
from tests.component.memory import complete, observe
from tests.unit.builders import Json, Scene, hash_of, history, template
from tests.unit.json_patch import PatchFailedError, apply
from watchdog.cli import cli
from watchdog.decide import marks
from watchdog.model import IncidentId
from watchdog.objects import CHANGE_CAUSE

WEB = "/apis/apps/v1/namespaces/shop/deployments/web"
SHOP = "/apis/apps/v1/namespaces/shop/deployments"
SETS = "/apis/apps/v1/namespaces/shop/replicasets"
PODS = "/api/v1/namespaces/shop/pods"
EVENTS = "/apis/events.k8s.io/v1/namespaces/shop/events"
ME = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
RIGHTS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

SECRET = "hunter2"
LEAK = f'Deployment in version "v1" cannot be handled: {{"name": "PASSWORD", "value": "{SECRET}"}}'


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Json:
        """The one object on standard output."""
        found: Json = json.loads(self.out)
        return found


Run = Callable[..., Awaitable[Ran]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be where no configuration is found by chance, and give the loggers back as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "ROLLBACK_WATCHDOG_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    root, ours = logging.getLogger(), logging.getLogger("watchdog")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture
def run(kubeconfig: Path) -> Run:
    """Run the command in this process, against the server of the test."""
    return runner(kubeconfig)


def runner(kubeconfig: Path) -> Run:
    async def run(*arguments: str) -> Ran:
        given = ["--kubeconfig", str(kubeconfig), *arguments]
        # A thread of its own, because the server answers in this one.
        result = await asyncio.to_thread(CliRunner().invoke, cli, given, standalone_mode=False)
        if isinstance(result.exception, click.ClickException):
            return Ran(result.exception.exit_code, result.stdout, result.exception.format_message())
        if result.exception:
            raise result.exception
        return Ran(result.return_value or 0, result.stdout, result.stderr)

    return run


def configure(text: str, *, name: str = "config.toml") -> None:
    """Write a configuration file where the command looks for it."""
    Path(name).write_text(text)


async def process(*arguments: str, code: str = "") -> Ran:
    """Run the command as a process of its own; with `code`, a program that uses it."""
    started = await start(*arguments, code=code)
    out, err = await started.communicate()
    return Ran(started.returncode or 0, out.decode(), err.decode())


async def start(*arguments: str, code: str = "") -> asyncio.subprocess.Process:
    what = ["-c", code] if code else ["-m", "watchdog"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipe = asyncio.subprocess.PIPE
    # A test run in the background of a shell ignores SIGINT, and its children would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", *what, *arguments, stdout=pipe, stderr=pipe, env=environment
        )
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def scene(api: FakeApi) -> Scene:
    """A workload with three revisions, the last of them bad, on a server whose controller finishes each rollout."""
    scene = history("v1", "v2", "v3")

    async def patch(request: web.Request) -> web.StreamResponse:
        try:
            after = scene.after(await request.read())
        except PatchFailedError:
            return await status(422, "Invalid", message=LEAK)(request)
        if "dryRun" not in request.query:
            scene.deployment = after
            after["metadata"]["generation"] += 1
            complete(scene)
        return await good(after)(request)

    async def get(request: web.Request) -> web.StreamResponse:
        return await good(scene.deployment)(request)

    async def listed(request: web.Request) -> web.StreamResponse:
        return await page(scene.deployment)(request)

    async def sets(request: web.Request) -> web.StreamResponse:
        return await page(*scene.replicasets)(request)

    api.answer("GET", WEB, get)
    api.answer("PATCH", WEB, patch)
    api.answer("GET", SHOP, listed)
    api.answer("WATCH", SHOP, Stream())
    api.answer("GET", SETS, sets)
    api.answer("POST", EVENTS, good({}))
    api.answer("POST", ME, good({"status": {"userInfo": {"username": "jane@example.com"}}}))
    return scene


# -- rollback ----------------------------------------------------------------------------------------------------------


async def test_a_rollback_that_is_verified_ends_with_0(run: Run, scene: Scene) -> None:
    ran = await run("rollback", "shop/web", "--reason", "checkout fails")
    assert ran.code == 0, ran
    assert scene.spec["template"] == template("v2")
    assert ran.out.startswith("shop/web: rolled back 3 → 2, 3 of 3 pods available after ")
    assert "(now revision 4)." in ran.out
    assert "spec.containers[web].image: registry.example/web:v3 -> registry.example/web:v2" in ran.out
    mark = marks.read_last_rollback(scene.annotations, now=dt.datetime.now(dt.UTC))
    assert mark is not None
    assert (mark.by, mark.cause) == ("jane@example.com", "checkout fails")


async def test_a_rollback_in_json_is_one_object(run: Run, scene: Scene) -> None:
    ran = await run("--output", "json", "rollback", "shop/web", "--to-revision", "1")
    found = ran.json
    assert ran.code == 0
    assert found.pop("elapsed_seconds") >= 0
    assert found.pop("incident").startswith("web-3-")
    assert found == {
        "schema": 1,
        "command": "rollback",
        "namespace": "shop",
        "deployment": "web",
        "outcome": "rolled-back",
        "detail": "rolled back 3 → 1, 3 of 3 pods available",
        "guard": None,
        "refusals": [],
        "from": revision(3, "v3"),
        "to": revision(1, "v1"),
        "changes": [
            "spec.containers[web].env[PASSWORD].value",
            "spec.containers[web].image: registry.example/web:v3 -> registry.example/web:v1",
        ],
        "forced": [],
        "revision": 4,
        "pods": [],
        "dry_run": False,
    }


def revision(number: int, version: str) -> Json:
    return {
        "revision": number,
        "hash": hash_of(version),
        "replicaset": f"web-{hash_of(version)}",
        "images": {"web": f"registry.example/web:{version}"},
    }


async def test_a_dry_run_changes_nothing_and_says_so(run: Run, api: FakeApi, scene: Scene) -> None:
    ran = await run("rollback", "shop/web", "--dry-run")
    assert ran.code == 0
    assert ran.out.startswith("shop/web: would go back 3 → 2. Nothing was changed.")
    assert scene.spec["template"] == template("v3")
    assert [seen.query.get("dryRun") for seen in api.seen if seen.method == "PATCH"] == ["All"]
    assert api.asked("POST", EVENTS) == []


async def test_a_rollback_that_is_not_waited_for_says_so(run: Run, api: FakeApi, scene: Scene) -> None:
    ran = await run("rollback", "shop/web", "--no-wait")
    assert ran.code == 0
    assert "not waited for" in ran.out
    assert api.asked("GET", SHOP) == []


def put_there_by_a_rollback(scene: Scene, *, by: str = "ada@example.com") -> None:
    """Somebody went from v2 to v3 by a rollback just now."""
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    incident = IncidentId("web-2-12345678")
    mark = marks.LastRollback(incident, hash_of("v2"), hash_of("v3"), 2, 1, by, "v2 is slow", now)
    scene.annotations[marks.LAST_ROLLBACK] = marks.write_last_rollback(mark)


async def test_a_second_rollback_of_the_hour_changes_nothing_ends_with_0_and_says_how_to_go_on(
    run: Run, api: FakeApi, scene: Scene
) -> None:
    put_there_by_a_rollback(scene)
    for options in ((), ("--dry-run",), ("--force", "--reason", "I am on call")):
        ran = await run("rollback", "shop/web", *options)
        assert ran.code == 0
        said, nothing = ran.out.splitlines()
        assert said.startswith("shop/web: already, revision 3 was put there by the rollback 2 → 1 at ")
        assert "by ada@example.com (v2 is slow); to go further back, name the revision with --to-revision" in said
        assert nothing == "Nothing was changed."
    found = (await run("rollback", "shop/web", "--output", "json")).json
    assert (found["outcome"], found["guard"], found["to"]) == ("already", "already", None)
    assert [seen for seen in api.seen if seen.method == "PATCH"] == []
    assert (await run("rollback", "shop/web", "--to-revision", "2")).code == 0
    assert scene.spec["template"] == template("v2")


async def test_a_policy_guard_refuses_with_4_and_names_the_way_past_it(run: Run, scene: Scene) -> None:
    scene.pause()
    ran = await run("rollback", "shop/web")
    assert ran.code == 4
    assert "shop/web: refused, paused: spec.paused is true" in ran.out
    assert "kubectl rollout resume deployment/web -n shop" in ran.out
    assert "Nothing was changed. To pass this: --force --reason TEXT" in ran.out


async def test_a_refusal_in_json_names_every_guard(run: Run, scene: Scene) -> None:
    scene.pause()
    scene.annotations[marks.HOLD] = "stop"
    ran = await run("rollback", "shop/web", "--output", "json")
    assert ran.code == 4
    assert (ran.json["outcome"], ran.json["guard"], ran.json["schema"]) == ("refused", "paused", 1)
    assert [(each["guard"], each["class"]) for each in ran.json["refusals"]] == [
        ("paused", "policy"),
        ("hold", "policy"),
    ]


async def test_force_with_a_reason_passes_the_policy_guards_and_says_which(run: Run, scene: Scene) -> None:
    scene.pause()
    ran = await run("rollback", "shop/web", "--force", "--reason", "I am on call")
    assert ran.code == 0
    assert "forced past paused" in ran.out
    assert scene.spec["paused"] is False


@pytest.mark.parametrize("reason", [[], ["--reason", ""], ["--reason", "  "]])
async def test_force_without_a_reason_is_a_mistake(run: Run, api: FakeApi, reason: list[str]) -> None:
    ran = await run("rollback", "shop/web", "--force", *reason)
    assert ran.code == 2
    assert "say why with --reason" in ran.err
    assert api.seen == []


async def test_another_revision_than_the_expected_one_is_left_alone(run: Run, scene: Scene) -> None:
    ran = await run("rollback", "shop/web", "--expected-current-revision", "2")
    assert ran.code == 4
    assert "superseded, superseded: revision 3 is live, not the expected 2" in ran.out
    assert "--force" not in ran.out, "nothing would be forced by it"
    assert scene.spec["template"] == template("v3")


async def test_an_undo_that_does_not_get_ready_ends_with_4_and_says_how_to_go_on(
    run: Run, api: FakeApi, scene: Scene
) -> None:
    async def patch(request: web.Request) -> web.StreamResponse:
        scene.deployment = apply(await request.read(), scene.deployment)
        observe(scene)
        return await good(scene.deployment)(request)

    api.answer("PATCH", WEB, patch)
    waiting = {"name": "web", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    api.answer("GET", PODS, page({"metadata": {}, "status": {"containerStatuses": [waiting]}}))
    ran = await run("rollback", "shop/web", "--timeout", "300ms")
    assert ran.code == 4
    assert "not complete after 0.3 s" in ran.out
    assert "1 pod: web: ImagePullBackOff" in ran.out
    assert "kubectl rollout status deployment/web -n shop" in ran.out


async def test_the_policy_of_a_workload_decides_about_gitops(run: Run, scene: Scene) -> None:
    scene.deployment["metadata"]["labels"] = {"kustomize.toolkit.fluxcd.io/name": "apps"}
    refused = await run("rollback", "shop/web", "--dry-run")
    assert (refused.code, "refused, gitops" in refused.out) == (4, True)
    configure('[[policies]]\nname = "web"\nnamespaces = ["shop"]\ngitops = "act"\n')
    assert (await run("rollback", "shop/web", "--dry-run")).code == 0


async def test_an_api_server_too_old_to_say_who_asks_does_not_stop_an_undo(
    run: Run, api: FakeApi, scene: Scene
) -> None:
    api.answer("POST", ME, status(404, "NotFound"))
    assert (await run("rollback", "shop/web")).code == 0
    mark = marks.read_last_rollback(scene.annotations, now=dt.datetime.now(dt.UTC))
    assert mark is not None
    assert mark.by == "unknown"


async def test_a_reason_in_another_encoding_is_no_unforeseen_error(run: Run, scene: Scene) -> None:
    ran = await run("rollback", "shop/web", "--reason", os.fsdecode(b"caf\xe9"))
    assert ran.code in (0, 2)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"),
    [(404, "NotFound", 2), (403, "Forbidden", 3), (401, "Unauthorized", 3), (400, "BadRequest", 3), (500, "Boom", 3)],
)
@pytest.mark.parametrize("output", ["text", "json"])
async def test_an_error_of_the_api_is_one_line_without_its_message(
    run: Run, api: FakeApi, code: int, reason: str, exit_code: int, output: str
) -> None:
    api.answer("GET", WEB, status(code, reason, message=LEAK))
    ran = await run("history", "shop/web", "--output", output)
    assert ran.code == exit_code
    assert ran.err.startswith(f"Error: get deployments shop/web: {reason}")
    assert len(ran.err.splitlines()) == 1
    assert SECRET not in ran.out + ran.err
    if output == "json":
        assert (ran.json["schema"], ran.json["command"]) == (1, "history")
        assert ran.json["error"]["message"] == ran.err.strip().removeprefix("Error: ")
        assert ran.json["error"]["detail"] == "get deployments shop/web"
    else:
        assert ran.out == ""


async def test_a_write_that_the_api_refuses_tells_nothing_of_the_object(run: Run, api: FakeApi, scene: Scene) -> None:
    configure('[log]\nlevel = "debug"\nformat = "json"\n')
    causes = {"causes": [{"field": "spec.replicas", "reason": "FieldValueInvalid", "message": LEAK}]}
    api.answer("PATCH", WEB, status(422, "Invalid", message=LEAK, details=causes))
    ran = await run("rollback", "shop/web")
    assert ran.code == 4
    assert "patch deployments shop/web: Invalid: spec.replicas (FieldValueInvalid)" in ran.err
    assert SECRET not in ran.out + ran.err


async def test_a_configuration_that_is_wrong_is_named_by_its_place(run: Run) -> None:
    configure("[log]\nlevel = 'loud'\n", name="wrong.toml")
    ran = await run("--config", "wrong.toml", "--output", "json", "check")
    assert ran.code == 2
    assert ran.err == "Error: log.level: write one of debug, info, warning, error\n"
    assert ran.json["error"] == {
        "code": "config-error",
        "message": "log.level: write one of debug, info, warning, error",
        "detail": "log.level",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["rollback"],
        ["rollback", "web"],
        ["rollback", "shop/"],
        ["rollback", "/web"],
        ["rollback", "shop/web/scale"],
        ["rollback", "shop/web", "--to-revision", "0"],
        ["rollback", "shop/web", "--timeout", "soon"],
        ["rollback", "shop/web", "--output", "yaml"],
        ["history", "shop/web", "--absolve", "two"],
        ["check", "--online"],
        ["check", "--offline"],
    ],
    ids=" ".join,
)
async def test_a_mistake_on_the_command_line_ends_with_2_before_anything_is_asked(
    run: Run, api: FakeApi, arguments: list[str]
) -> None:
    ran = await run(*arguments)
    assert ran.code == 2
    assert ran.err
    assert api.seen == []


@pytest.mark.parametrize(
    "workload", ["shop/web#1", "shop/web?dryRun=All", "shop/..", "shop/Web", "shop/we%62", "../web"]
)
async def test_what_is_no_name_in_kubernetes_is_no_workload(
    run: Run, api: FakeApi, scene: Scene, workload: str
) -> None:
    # Part of it would be taken for something else than the name when it becomes a path.
    ran = await run("rollback", workload)
    assert ran.code == 2
    assert scene.spec["template"] == template("v3")
    assert api.seen == []


async def test_a_mistake_on_the_command_line_is_an_object_where_json_is_asked_for(run: Run) -> None:
    ran = await run("--output", "json", "check", "--online")
    assert ran.code == 2
    assert ran.json["schema"] == 1
    assert "-n NAMESPACE" in ran.json["error"]["message"]


async def test_a_server_that_cannot_be_reached_ends_with_3(tmp_path: Path) -> None:
    ran = await runner(write_kubeconfig(tmp_path, "http://127.0.0.1:9"))("history", "shop/web", "--output", "json")
    assert ran.code == 3
    assert ran.json["error"]["code"] == "unanswered"


async def test_a_server_that_never_answers_ends_with_3_within_the_deadline(run: Run, api: FakeApi) -> None:
    configure('kubernetes.request_timeout = "200ms"\n')
    api.answer("GET", WEB, hang)
    api.answer("POST", ME, hang)
    began = asyncio.get_running_loop().time()
    ran = await run("rollback", "shop/web")
    assert ran.code == 3
    assert "no answer within 0.2 s" in ran.err
    assert 0.4 <= asyncio.get_running_loop().time() - began < 3


async def test_an_answer_that_is_no_object_ends_with_3(run: Run, api: FakeApi) -> None:
    api.answer("GET", WEB, raw(f'{{"metadata": "{SECRET}"'.encode()))
    ran = await run("history", "shop/web")
    assert (ran.code, ran.err) == (3, "Error: get deployments shop/web: malformed answer\n")


# -- common options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "json", "--config", "mine.toml", "check"],
        ["check", "--output", "json", "--config", "mine.toml"],
        ["--output", "text", "--config", "other.toml", "check", "--output", "json", "--config", "mine.toml"],
        ["--output", "json", "check", "--config", "mine.toml"],
    ],
    ids=" ".join,
)
async def test_common_options_may_stand_on_both_sides_and_the_later_one_holds(run: Run, arguments: list[str]) -> None:
    configure("", name="mine.toml")
    ran = await run(*arguments)
    assert ran.code == 0
    assert ran.json["config"] == "mine.toml"


# -- history -----------------------------------------------------------------------------------------------------------


async def test_history_shows_revisions_causes_and_marks_newest_first(run: Run, scene: Scene) -> None:
    scene.annotate("v2", CHANGE_CAUSE, "new [bold]checkout[/]")
    scene.condemn("v2", incident="web-2-0badf00d")
    scene.annotate("v1", marks.PASSED, marks.write_about(hash_of("v1"), "2026-02-01T00:00:00Z"))
    scene.annotate("v3", marks.PASSED, marks.write_about(hash_of("v1"), "2026-02-01T00:00:00Z"))
    ran = await run("history", "shop/web")
    header, *rows = [line.split() for line in ran.out.splitlines()]
    assert header == ["REVISION", "HASH", "CREATED", "IMAGES", "CAUSE", "MARKS"]
    assert [row[0] for row in rows] == ["3", "2", "1"]
    assert rows[0][-1] == "live", "what passed is another hash"
    assert " ".join(rows[1]).endswith(
        "registry.example/web:v2 new [bold]checkout[/] condemned by web-2-0badf00d, a claim: no record of the service"
        " or a gate proves it"
    )
    assert " ".join(rows[2]).endswith("registry.example/web:v1 passed 2026-02-01T00:00:00Z")


async def test_history_in_json_is_one_object(run: Run, scene: Scene) -> None:
    assert (await run("rollback", "shop/web", "--reason", "checkout fails")).code == 0
    ran = await run("history", "shop/web", "--output", "json")
    found = ran.json
    assert ran.code == 0
    assert (found["schema"], found["command"], found["absolved"]) == (1, "history", None)
    assert [(item["revision"], item["live"]) for item in found["revisions"]] == [(4, True), (3, False), (1, False)]
    assert (found["last_rollback"]["from_revision"], found["last_rollback"]["cause"]) == (3, "checkout fails")
    assert found["proven"] == [], "nobody keeps a record of a person's rollback"


async def test_a_foreign_text_cannot_forge_lines_or_paint_the_terminal(run: Run, scene: Scene) -> None:
    scene.annotate("v2", CHANGE_CAUSE, "harmless\n9  forged\x1b[2J\x9b2J\r")
    ran = await run("history", "shop/web")
    assert len(ran.out.splitlines()) == 4
    assert not {"\x1b", "\x9b", "\r"} & set(ran.out)


async def test_an_absolution_lifts_the_condemnation_and_says_of_which_incident(
    run: Run, api: FakeApi, scene: Scene
) -> None:
    scene.condemn("v2", incident="web-2-0badf00d")

    async def patch(request: web.Request) -> web.StreamResponse:
        document = scene.replicaset("v2")
        document.update(apply(await request.read(), document))
        return await good(document)(request)

    api.answer("PATCH", f"{SETS}/web-{hash_of('v2')}", patch)
    ran = await run("history", "shop/web", "--absolve", "2")
    assert ran.code == 0
    assert ran.out.startswith("shop/web: revision 2 is absolved of incident web-2-0badf00d\n")
    assert ran.out.count("condemned") == 0
    again = await run("history", "shop/web", "--absolve", "2")
    assert (again.code, "was not condemned: nothing to lift" in again.out) == (0, True)


async def test_an_absolution_of_a_revision_that_is_not_there_is_a_mistake(run: Run, scene: Scene) -> None:
    ran = await run("history", "shop/web", "--absolve", "9")
    assert ran.code == 2
    assert "no such revision" in ran.err


# -- check -------------------------------------------------------------------------------------------------------------


def grant_all_but(api: FakeApi, *missing: str) -> None:
    """Let the API server grant every right except these, written as `verb resource`."""

    async def review(request: web.Request) -> web.StreamResponse:
        right = (await request.json())["spec"]["resourceAttributes"]
        return await good({"status": {"allowed": f"{right['verb']} {right['resource']}" not in missing}})(request)

    api.answer("POST", RIGHTS, review)
    api.answer("POST", ME, good({"status": {"userInfo": {"username": "jane@example.com"}}}))


async def test_a_good_configuration_needs_no_server(run: Run, api: FakeApi) -> None:
    assert "No configuration file, defaults hold: good, 0 policies." in (await run("check")).out
    configure('[[policies]]\nname = "web"\nnamespaces = ["shop"]\n')
    ran = await run("check")
    assert (ran.code, ran.out) == (0, "config.toml: good, 1 policy.\n")
    assert api.seen == []


async def test_all_rights_that_are_there_end_with_0(run: Run, api: FakeApi) -> None:
    grant_all_but(api)
    ran = await run("check", "--online", "-n", "shop")
    assert ran.code == 0
    assert "NO" not in ran.out.split()
    assert "jane@example.com: all rights are there." in ran.out


@pytest.mark.parametrize(
    ("missing", "lost", "code"),
    [
        ("patch deployments", "no undo, scale-down, restore or pause", 2),
        ("watch deployments", "an undo is not verified", 2),
        ("patch replicasets", "no condemned marks, no --absolve", 0),
        ("create events", "no Events on the Deployment", 0),
    ],
)
async def test_a_missing_right_is_shown_with_what_is_lost_without_it(
    run: Run, api: FakeApi, missing: str, lost: str, code: int
) -> None:
    grant_all_but(api, missing)
    ran = await run("check", "--online", "-n", "shop")
    assert ran.code == code
    rows = [line for line in ran.out.splitlines() if " NO " in line]
    assert len(rows) == 1
    assert missing in rows[0]
    assert rows[0].rstrip().endswith(lost)


async def test_a_check_in_json_is_one_object_for_all_namespaces(run: Run, api: FakeApi) -> None:
    grant_all_but(api, "list pods")
    configure('[[policies]]\nname = "web"\nnamespaces = ["shop"]\n')
    found = (await run("check", "--online", "-n", "other", "--output", "json")).json
    assert (found["schema"], found["command"], found["user"], found["good"]) == (1, "check", "jane@example.com", True)
    assert {right["namespace"] for right in found["rights"]} >= {"shop", "other"}
    assert [right["namespace"] for right in found["rights"] if not right["allowed"]] == ["other", "shop"]


async def test_rights_that_cannot_be_asked_for_end_with_3(run: Run, api: FakeApi) -> None:
    api.answer("POST", RIGHTS, status(500, "InternalError"))
    ran = await run("check", "--online", "-n", "shop", "--output", "json")
    assert ran.code == 3
    assert ran.json["error"]["code"] == "server-error"


# -- as a process ------------------------------------------------------------------------------------------------------


async def test_the_process_ends_as_the_command_does(kubeconfig: Path, api: FakeApi, scene: Scene) -> None:
    scene.pause()
    refused, mistaken = await asyncio.gather(
        process("rollback", "shop/web", "--kubeconfig", str(kubeconfig), "--output", "json"),
        process("rollback", "shop/web", "--revision", "1"),
    )
    assert (refused.code, refused.json["guard"]) == (4, "paused")
    assert [json.loads(line)["event"] for line in refused.err.splitlines()] == ["refused"]
    assert (mistaken.code, mistaken.out) == (2, "")
    assert "No such option '--revision'" in mistaken.err
    assert "Traceback" not in mistaken.err


async def test_an_unforeseen_error_ends_with_3_since_1_would_read_as_a_breach() -> None:
    broken = (
        "import click, sys\n"
        "from watchdog.cli import cli, main\n"
        "@cli.command()\n"
        "def broken():\n"
        "    raise ZeroDivisionError('by nobody')\n"
        "main()\n"
    )
    ran = await process("broken", code=broken)
    assert ran.code == 3
    assert "Error: unforeseen error; the log has the traceback" in ran.err
    assert "ZeroDivisionError: by nobody" in ran.err


async def test_an_interruption_ends_with_130_and_says_that_a_write_goes_on(kubeconfig: Path, api: FakeApi) -> None:
    api.answer("GET", WEB, hang)
    started = await start("history", "shop/web", "--kubeconfig", str(kubeconfig))
    await api.reached(1, "GET", WEB)
    started.send_signal(signal.SIGINT)
    _, err = await started.communicate()
    assert started.returncode == 130
    assert b"what the API server has accepted by now goes on" in err
    assert b"Traceback" not in err
