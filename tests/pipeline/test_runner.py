"""The runner of workflows does what GitHub's does, as far as it goes, and refuses the rest."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.expressions import ExpressionError, Open, evaluate, fill
from tests.pipeline.runner import Run
from tests.pipeline.words import Configuration, Event, Host, WorkflowError

CONTEXTS: dict[str, Any] = {
    "github": {"event_name": "push", "ref": "refs/heads/main"},
    "vars": Open(SET="7m"),
    "steps": {"build": {"outcome": "success", "outputs": Open(digest="d")}},
}

HEAD = """
name: test
on: {workflow_dispatch: {inputs: {colour: {type: choice, options: [blue, green], required: true}}}}
permissions: {}
concurrency: {group: test}
"""


def run(tmp_path: Path, jobs: str, **secrets: str) -> Run:
    file = tmp_path / "workflow.yml"
    file.write_text(HEAD + textwrap.dedent(jobs))

    def stand_in(host: Host, given: Mapping[str, str]) -> Mapping[str, str]:
        return {"said": given["say"]}

    return Run(
        file,
        Event(name="workflow_dispatch", sha="0" * 40, inputs={"colour": "green"}),
        configuration=Configuration(secrets=secrets),
        stand_ins={"others/action": stand_in},
        programs=tmp_path,
        directory=tmp_path / "run",
        begins=lambda job: None,
    ).run()


def outcomes(found: Run, job: str = "one") -> dict[str, str]:
    return {step.title: step.outcome for step in found.jobs[job].steps}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("github.event_name == 'push' && 'main' || github.ref", "main"),
        ("github.event_name == 'pull_request' && 'main' || github.ref", "refs/heads/main"),
        ("github.event_name == 'PUSH'", True),
        ("vars.SET || '5m'", "7m"),
        ("vars.UNSET || '5m'", "5m"),
        ("vars.UNSET != ''", False),
        ("!(always() && steps.build.outcome == 'failure')", True),
        ("steps.build.outputs.other", ""),
        ("'it''s'", "it's"),
    ],
)
def test_an_expression_has_the_value_that_github_gives_it(text: str, value: object) -> None:
    assert evaluate(text, CONTEXTS, {"always": lambda: True}) == value


@pytest.mark.parametrize(
    "text",
    [
        "github.evnt_name",
        "steps.biuld.outcome",
        "hashFiles('x')",
        "github",
        "a b",
        "'open",
        "vars.SET ==",
        "1 + 1",
        "(",
    ],
)
def test_what_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(text, CONTEXTS, {})


def test_a_text_is_filled_in_many_places() -> None:
    assert fill("${{ vars.SET }}@${{ steps.build.outputs.digest }}", CONTEXTS) == "7m@d"


def test_outputs_environment_and_path_reach_the_steps_after(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        """
        jobs:
          one:
            runs-on: here
            outputs: {both: "${{ steps.a.outputs.x }} ${{ steps.b.outputs.said }}"}
            steps:
              - id: a
                run: |
                  echo "x=1" >>"$GITHUB_OUTPUT"; printf 'Y<<END\\n2\\n3\\nEND\\n' >>"$GITHUB_ENV"
                  mkdir bin; printf '#!/bin/sh\\necho called' >bin/tool; chmod +x bin/tool
                  echo "$PWD/bin" >>"$GITHUB_PATH"
              - {id: b, uses: others/action@v1, with: {say: "${{ inputs.colour }}"}}
              - {name: last, run: 'tool; echo "$Y" | tr "\\n" " "'}
          two:
            needs: one
            runs-on: here
            steps: [{name: told, env: {BOTH: "${{ needs.one.outputs.both }}"}, run: 'test "$BOTH" = "1 green"'}]
        """,
    )
    assert found.jobs["one"].step("last").output.split() == ["called", "2", "3"]
    assert found.jobs["two"].result == "success"
    assert found.used == ["others/action"]


def test_after_a_failure_only_those_steps_and_jobs_run_that_ask_for_it(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        """
        jobs:
          one:
            runs-on: here
            steps:
              - {name: fails, id: bad, run: exit 3}
              - {name: next, run: "true"}
              - {name: if failed, if: failure() && steps.bad.outcome == 'failure', run: "true"}
              - {name: either way, if: success() || failure(), run: "true"}
              - {name: if no failure, if: inputs.colour == 'green', run: "true"}
          two: {needs: one, runs-on: here, steps: [{run: "true"}]}
          three: {needs: [one, two], if: always() && inputs.colour == 'green', runs-on: here, steps: [{run: "true"}]}
        """,
    )
    ran = {"fails": "failure", "next": "skipped", "if failed": "success", "either way": "success"}
    assert outcomes(found) == {**ran, "if no failure": "skipped"}
    assert {job.name: job.result for job in found.jobs.values()} == {
        "one": "failure",
        "two": "skipped",
        "three": "success",
    }


@pytest.mark.parametrize(("shell", "outcome"), [("", "success"), ("shell: bash", "failure")])
def test_a_pipe_hides_a_failure_unless_the_shell_is_named(tmp_path: Path, shell: str, outcome: str) -> None:
    step = f"{{name: pipe, run: 'false | true', {shell}}}"
    assert outcomes(run(tmp_path, f"jobs: {{one: {{runs-on: here, steps: [{step}]}}}}")) == {"pipe": outcome}


def test_a_secret_that_is_printed_is_masked_and_told(tmp_path: Path) -> None:
    steps = "[{env: {KEY: '${{ secrets.KEY }}'}, run: 'echo \"the $KEY\"'}]"
    found = run(tmp_path, f"jobs: {{one: {{runs-on: here, steps: {steps}}}}}", KEY="hidden")
    assert "hidden" not in found.log
    assert "| the ***" in found.log
    assert len(found.leaked) == 1


@pytest.mark.parametrize(
    "job",
    [
        "{runs-on: here, strategy: {}, steps: []}",
        "{runs-on: here, steps: [{run: 'true', continue-on-error: true}]}",
        "{runs-on: here, steps: [{uses: somebody/else@v1}]}",
    ],
)
def test_a_part_that_the_runner_lacks_is_refused_and_never_skipped(tmp_path: Path, job: str) -> None:
    with pytest.raises(WorkflowError):
        run(tmp_path, f"jobs: {{one: {job}}}")
