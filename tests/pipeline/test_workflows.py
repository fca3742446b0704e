"""The workflows as they are read: by actionlint, by zizmor, and for what docs/pipeline.md promises of them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.actionlint.tool import build

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
FILES = sorted([*GITHUB.glob("workflows/*.yml"), *GITHUB.glob("actions/*/action.yml")])
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def workflow(name: str) -> dict[str, Any]:
    read: dict[Any, Any] = yaml.safe_load((GITHUB / "workflows" / f"{name}.yml").read_text())
    return {str(key): value for key, value in read.items()} | {"on": read[True]}  # YAML 1.1 reads `on` as true


def steps(name: str, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workflow(name)["jobs"][job]["steps"]
    return found


def step(name: str, job: str, title: str) -> dict[str, Any]:
    return next(each for each in steps(name, job) if each.get("name") == title)


def test_actionlint_finds_nothing() -> None:
    workflows = [str(path) for path in FILES if path.parent.name == "workflows"]
    done = subprocess.run([build(), *workflows], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr


def test_zizmor_finds_nothing() -> None:
    zizmor = str(Path(sys.executable).with_name("zizmor"))
    command = [zizmor, "--offline", "--no-progress", "--quiet", str(GITHUB)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_action_is_pinned_by_its_sha(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text())
    foreign = [each for each in used if not each.startswith("./")]
    assert [each for each in foreign if not PINNED.fullmatch(each)] == []


def test_evaluations_do_not_run_on_pull_requests() -> None:
    assert step("deploy-agent", "test", "Evaluation")["if"] == "github.event_name == 'push'"
    others = [each for each in steps("deploy-agent", "test") if each.get("name") != "Evaluation"]
    assert "AGENT_EVAL" not in str(others)


def test_unit_tests_run_on_every_pull_request() -> None:
    assert "pull_request" in workflow("deploy-agent")["on"]
    assert "if" not in workflow("deploy-agent")["jobs"]["test"]
    assert "if" not in step("deploy-agent", "test", "Unit tests")


def test_nothing_is_built_or_deployed_from_a_pull_request() -> None:
    jobs = workflow("deploy-agent")["jobs"]
    assert jobs["image"]["if"] == "github.event_name == 'push'"
    assert jobs["staging"]["needs"] == "image"
    assert {"image", "staging"} <= set(jobs["production"]["needs"])
    assert workflow("deploy-agent")["on"]["push"]["branches"] == ["main"]


def test_production_stands_behind_an_environment_and_after_stagings_smoke_test() -> None:
    jobs = workflow("deploy-agent")["jobs"]
    assert jobs["production"]["environment"] == "production"
    assert "staging" in jobs["production"]["needs"]
    assert jobs["staging"]["steps"][-1]["name"] == "Smoke test"


def test_the_pipeline_cannot_be_started_by_hand_past_its_tests() -> None:
    assert "workflow_dispatch" not in workflow("deploy-agent")["on"], "a deployment by hand skips nothing"


def test_the_canary_is_watched_for_five_minutes_before_the_full_rollout() -> None:
    names = [each.get("name") for each in steps("deploy-agent", "production")]
    assert names.index("Canary") < names.index("Canary's gate") < names.index("Full rollout")
    for title in ("Canary's gate", "Full rollout's gate"):
        gate = step("deploy-agent", "production", title)["with"]
        assert gate["for"] == "${{ vars.GATE_FOR || '5m' }}"


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.parent.name == "workflows"])
def test_jobs_have_a_deadline_least_rights_and_one_at_a_time(name: str) -> None:
    read = workflow(name)
    assert read["permissions"] == {}
    assert read["concurrency"]["group"]
    for job in read["jobs"].values():
        assert job["timeout-minutes"] <= 60
        writes = {key for key, value in job["permissions"].items() if value == "write"}
        assert writes <= {"packages"}


def scripts(path: Path) -> list[str]:
    read = yaml.safe_load(path.read_text())
    groups = [job["steps"] for job in read["jobs"].values()] if "jobs" in read else [read["runs"]["steps"]]
    return [step["run"] for steps in groups for step in steps if "run" in step]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_secret_or_input_is_written_into_a_script(path: Path) -> None:
    """They come through the environment, where they are data and are masked."""
    assert scripts(path)
    assert [script for script in scripts(path) if "${{" in script] == []


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.parent.name == "workflows"])
def test_a_failure_within_a_pipe_fails_its_step(name: str) -> None:
    """GitHub's default shell is `bash -e`; only a shell that is named has pipefail."""
    read = workflow(name)
    assert read["defaults"]["run"]["shell"] == "bash"
    for job in read["jobs"].values():
        assert job.get("defaults", {}).get("run", {}).get("shell", "bash") == "bash"
        assert [step for step in job["steps"] if step.get("shell", "bash") != "bash"] == []


KEY = re.compile(r"sk-[A-Za-z0-9]{20,}|xox[bp]-[0-9]|gh[pos]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16}")


@pytest.mark.parametrize(
    "key",
    ["sk-" + 24 * "a", "xoxb-" + "1", "ghp_" + 36 * "a", "AKIA" + 16 * "A"],
    ids=["openai", "slack", "github", "aws"],
)
def test_a_key_would_be_found(key: str) -> None:
    assert KEY.search(f'TOKEN = "{key}"')


def test_no_key_is_in_the_code() -> None:
    files = subprocess.run(["git", "ls-files", "-z", "examples", ".github"], cwd=ROOT, capture_output=True, check=True)
    names = files.stdout.decode().split("\0")[:-1]
    assert len(names) > 40
    assert [name for name in names if KEY.search((ROOT / name).read_text())] == []


def test_every_promise_of_the_document_names_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "pipeline.md").read_text()
    folders = [ROOT / "tests", ROOT / "examples" / "agent-api" / "tests"]
    code = "".join(path.read_text() for folder in folders for path in folder.rglob("test_*.py"))
    defined = set(re.findall(r"def (test_\w+)", code))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 15
    assert named - defined == set()
