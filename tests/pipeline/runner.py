"""Runs a workflow as GitHub would, on this machine: jobs by their needs, each `run:` step by bash and as it is written.

What GitHub does with a step's environment, outputs, conditions and status is done here, too; what this file does not
know is an error and never skipped. Actions of others are replaced by stand-ins that are given by name. Of rights,
concurrency and deadlines GitHub alone knows: `permissions` and `timeout-minutes` are read by `test_workflows.py`.
"""

import datetime as dt
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.pipeline.expressions import Functions, Open, condition, fill
from tests.pipeline.words import (
    Configuration,
    Event,
    Host,
    Job,
    Json,
    StandIn,
    Step,
    WorkflowError,
    given_inputs,
    pairs,
)

_SERVER = "https://github.com"
_SHELLS = {"": ["bash", "-e"], "bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"]}
_KNOWN = {
    "workflow": {"name", "on", "permissions", "concurrency", "defaults", "jobs"},
    "job": {
        *("needs", "if", "runs-on", "timeout-minutes", "permissions", "environment", "outputs", "env", "defaults"),
        "steps",
    },
    "step": {"name", "id", "if", "env", "run", "uses", "with", "shell"},
}
_LONGEST_S = 180.0


class Run:
    """One run of a workflow; `jobs` has what became of each.

    Args:
        workflow: the file.
        event: what started it.
        configuration: variables and secrets.
        stand_ins: by the name of the action that they replace, without its version.
        programs: goes before the system's PATH.
        directory: for workspaces, and for `pipeline.log`.
        begins: is told of each job that begins.
        repository: OWNER/NAME.
    """

    def __init__(
        self,
        workflow: Path,
        event: Event,
        *,
        configuration: Configuration,
        stand_ins: Mapping[str, StandIn],
        programs: Path,
        directory: Path,
        begins: Callable[[str], None],
        repository: str = "Example/Shop",
    ) -> None:
        self._read = _workflow(workflow)
        self._event = event
        self._configuration = configuration
        self._stand_ins = stand_ins
        self._programs = programs
        self._begins = begins
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._repository = repository
        self._secrets: set[str] = set()
        self._began = time.time()
        self.jobs: dict[str, Job] = {}
        self.used: list[str] = []
        self.approved: list[str] = []
        self.leaked: list[str] = []
        self.log_file = directory / "pipeline.log"
        self.summary = directory / "summary.md"
        self.summary.touch()
        self._github: Json = {
            "event_name": event.name,
            "sha": event.sha,
            "ref": "refs/heads/main" if event.name == "push" else "refs/pull/7/merge",
            "actor": event.actor,
            "repository": repository,
            "run_id": str(secrets.randbelow(10**9)),
            "run_attempt": "1",
            "server_url": _SERVER,
        }

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self) -> "Run":
        """Run every job, each after those that it needs."""
        group = fill(self._read["concurrency"]["group"], {"github": self._github, "inputs": self._inputs()})
        self._say(f"{self._read['name']}: {self._event.name} of {self._event.sha[:7]}, one at a time in {group}")
        left = dict(self._read["jobs"])
        while left:
            name = next(each for each in left if not set(_needs(left[each])) & left.keys())
            self.jobs[name] = self._job(name, left.pop(name))
        self._say(f"end: {', '.join(f'{job.name} {job.result}' for job in self.jobs.values())}")
        return self

    @property
    def log(self) -> str:
        """What was logged so far."""
        return self.log_file.read_text()

    def _inputs(self) -> dict[str, str]:
        """Of a dispatch, with the workflow's defaults; an input that it does not have is refused."""
        dispatch = (self._read["on"].get("workflow_dispatch") or {}) if isinstance(self._read["on"], dict) else {}
        return given_inputs(dispatch.get("inputs", {}), self._event.inputs)

    def _job(self, name: str, job: Json) -> Job:
        _known("job", job)
        needs = {each: self.jobs[each] for each in _needs(job)}
        needed = {each: {"result": found.result, "outputs": found.outputs} for each, found in needs.items()}
        results = {found.result for found in needs.values()}
        status: Functions = {
            "success": lambda: results <= {"success"},
            "failure": lambda: "failure" in results,
            "always": lambda: True,
        }
        environment = job.get("environment", "")
        contexts: Json = {
            "github": self._github,
            "needs": needed,
            "inputs": self._inputs(),
            **self._settings(environment),
        }
        if not condition(job.get("if"), contexts, status):
            self._say(f"{name}: skipped")
            return Job(name=name, result="skipped")
        self._say(
            f"{name}: begins on {job['runs-on']}" + (f", environment {environment} approved" if environment else "")
        )
        self._begins(name)
        if environment:
            self.approved.append(environment)
        return self._steps(name, job, contexts)

    def _settings(self, environment: str) -> Json:
        here = self._configuration
        there = here.environments[environment] if environment else Configuration()
        found = Open({**here.secrets, **there.secrets})
        self._secrets |= {value for value in found.values() if value}
        return {"vars": Open({**here.variables, **there.variables}), "secrets": found}

    def _steps(self, name: str, job: Json, contexts: Json) -> Job:
        host = self._host(name, fill_all(job.get("env", {}), contexts))
        found = Job(name=name, result="success")
        defaults: Json = {**_defaults(self._read), **_defaults(job)}
        contexts |= {"runner": {"temp": str(host.temp)}, "job": {"status": "success"}, "steps": {}}
        for each in job["steps"]:
            contexts["job"] = {"status": found.result}
            step = self._step(each, defaults, host, contexts, found.result, f"{name}: ")
            found.steps.append(step)
            if step.outcome == "failure":
                found.result = "failure"
        found.outputs = Open(fill_all(job.get("outputs", {}), contexts))
        self._say(f"{name}: {found.result}")
        return found

    def _host(self, name: str, env: Mapping[str, str]) -> Host:
        home = self._directory / name
        workspace, temp = home / "workspace", home / "temp"
        for each in (workspace, temp):
            each.mkdir(parents=True)
        base = {
            **{f"GITHUB_{key.upper()}": str(value) for key, value in self._github.items()},
            **{"CI": "true", "GITHUB_ACTIONS": "true", "HOME": str(home), "LANG": "C.UTF-8"},
            **{"GITHUB_WORKSPACE": str(workspace), "RUNNER_TEMP": str(temp), "GITHUB_STEP_SUMMARY": str(self.summary)},
        }
        return Host(workspace=workspace, temp=temp, env={**base, **env}, path=[], summary=self.summary)

    # -- a step --------------------------------------------------------------------------------------------------------

    def _step(self, step: Json, defaults: Json, host: Host, contexts: Json, status: str, where: str) -> Step:
        _known("step", step)
        title = str(step.get("name") or step.get("uses", "").partition("@")[0] or step["run"].splitlines()[0])
        functions: Functions = {
            "success": lambda: status == "success",
            "failure": lambda: status == "failure",
            "always": lambda: True,
        }
        began = time.time()
        if not condition(step.get("if"), contexts, functions):
            found = Step(title=title, outcome="skipped", began=began)
        elif "uses" in step:
            found = self._action(step, title, host, contexts, where)
        else:
            found = self._script(step, title, defaults, host, contexts)
        found.took_s = time.time() - began
        if identity := step.get("id"):
            contexts["steps"][identity] = {"outcome": found.outcome, "outputs": found.outputs}
        self._say(f"{where}{title}: {found.outcome} after {found.took_s:.1f} s", found.output)
        return found

    def _script(self, step: Json, title: str, defaults: Json, host: Host, contexts: Json) -> Step:
        began = time.time()
        files = {name: host.temp / f"{name.lower()}-{secrets.token_hex(4)}" for name in ("OUTPUT", "ENV", "PATH")}
        for file in files.values():
            file.touch()
        path = os.pathsep.join([*host.path, str(self._programs), "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"])
        env = {**host.env, **fill_all(step.get("env", {}), contexts), "PATH": path}
        env |= {f"GITHUB_{name}": str(file) for name, file in files.items()}
        script = host.temp / f"script-{secrets.token_hex(4)}.sh"
        script.write_text(fill(step["run"], contexts))
        shell = _SHELLS[str(step.get("shell", defaults.get("shell", "")))]
        directory = host.workspace / defaults.get("working-directory", ".")
        code, output = _bash([*shell, str(script)], directory, env)
        host.env.update(pairs(files["ENV"].read_text()))
        host.path[:0] = reversed(files["PATH"].read_text().split())
        outcome = "failure" if code else "success"
        if code:
            output += f"(exit code {code})\n"
        return Step(
            title=title, outcome=outcome, began=began, output=output, outputs=pairs(files["OUTPUT"].read_text())
        )

    def _action(self, step: Json, title: str, host: Host, contexts: Json, where: str) -> Step:
        began, used = time.time(), str(step["uses"])
        given = fill_all(step.get("with", {}), contexts)
        if used.startswith("./"):
            return self._composite(host.workspace / used, title, given, host, contexts, where)
        name = used.partition("@")[0]
        if name not in self._stand_ins:
            raise WorkflowError(f"nobody stands in for {name}")
        self.used.append(name)
        outputs = Open(self._stand_ins[name](host, given))
        said = "".join(f"{key}={value}\n" for key, value in outputs.items())
        return Step(title=title, outcome="success", began=began, output=f"({name}: stand-in)\n{said}", outputs=outputs)

    def _composite(
        self, directory: Path, title: str, given: Mapping[str, str], host: Host, contexts: Json, where: str
    ) -> Step:
        read = yaml.safe_load((directory / "action.yml").read_text())
        if read["runs"]["using"] != "composite":
            raise WorkflowError(f"{directory.name} is no composite action")
        found = Step(title=title, outcome="success", began=time.time())
        github = {**contexts["github"], "action_path": str(directory)}
        inputs = given_inputs(read.get("inputs", {}), given)
        inner: Json = {"github": github, "inputs": inputs, "runner": contexts["runner"], "steps": {}}
        for each in read["runs"]["steps"]:
            step = self._step(each, {}, host, inner, found.outcome, f"{where}{title}: ")
            found.inner += (step,)
            if step.outcome == "failure":
                found.outcome = "failure"
        return found

    def _say(self, line: str, output: str = "") -> None:
        """Log a line with the time since the run began, and what a step has printed, in which no secret may stand."""
        for secret in self._secrets:
            if secret in output:
                self.leaked.append(line)
            output = output.replace(secret, "***")
        now = dt.datetime.now(dt.UTC)
        told = "".join(f"{' ' * 12}| {each}\n" for each in output.splitlines())
        with self.log_file.open("a") as log:
            log.write(f"{now:%H:%M:%S} {now.timestamp() - self._began:6.1f} s  {line}\n{told}")


def fill_all(texts: Mapping[str, object], contexts: Mapping[str, Any]) -> dict[str, str]:
    """Fill every text of a mapping."""
    return {key: fill(value, contexts) for key, value in texts.items()}


def _workflow(path: Path) -> Json:
    read: dict[Any, Any] = yaml.safe_load(path.read_text())
    found: Json = {("on" if key is True else str(key)): value for key, value in read.items()}  # YAML 1.1's `on`
    _known("workflow", found)
    return found


def _known(kind: str, read: Json) -> None:
    if unknown := read.keys() - _KNOWN[kind]:
        raise WorkflowError(f"this runner knows no {', '.join(sorted(unknown))} of a {kind}")


def _defaults(read: Json) -> Json:
    found: Json = read.get("defaults", {}).get("run", {})
    return found


def _needs(job: Json) -> list[str]:
    needs = job.get("needs", [])
    return [needs] if isinstance(needs, str) else list(needs)


def _bash(command: list[str], directory: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Run a script in a process group of its own, which is ended when it takes too long."""
    with subprocess.Popen(
        command,
        cwd=directory,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=_LONGEST_S)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            output += f"(ended after {_LONGEST_S:.0f} s)\n".encode()
    return process.returncode, output.decode(errors="replace")
