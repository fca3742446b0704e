"""What the pipeline is run against: a cluster with pods that work, stores, model, Prometheus, people and Slack."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import yaml

from tests.controlplane.build import CACHE
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import _DIE_WITH_PARENT as DIE_WITH_PARENT
from tests.controlplane.plane import ApiError, ControlPlane, Json, free_ports
from tests.monitoring.prometheus import PrometheusServer
from tests.pipeline.kubelet import NODE, Kubelet
from tests.pipeline.network import BUSY, QUIET, People, Services, Slack, serve
from tests.pipeline.repository import AGENT, ROOT, Commit, Registry, Repository, stand_ins
from tests.pipeline.runner import Run
from tests.pipeline.words import Configuration, Event

NAMESPACES = ("staging", "production")
GATE_FOR_S = 12

# A step of one second, as Prometheus scrapes, and a grace in which it finds new pods: it looks every five seconds.
GATE_CONFIG = """\
prometheus.step = "1s"
prometheus.delay = "1s"
[[policies]]
name = "agent"
namespaces = ["production"]
grace = "7s"
"""
_SERVICES = (("staging", "agent-api"), ("production", "agent-api"), ("production", "agent-api-preview"))


class Site:
    """All of it; a context manager. It has production's first version live, and people who use it.

    Args:
        plane: the control plane.
        directory: for everything that is written.
    """

    def __init__(self, plane: ControlPlane, directory: Path) -> None:
        self.plane = plane
        self.directory = directory
        self.production, self.staging = (Cluster(plane, name, poll_s=0.1) for name in ("production", "staging"))
        self.repository = Repository(directory / "commits")
        self.registry = Registry(directory / "images")
        self.python = agent_python()
        *ports, self._port = free_ports(len(_SERVICES) + 1)
        self.address = f"127.0.0.1:{self._port}"
        self._ports = dict(zip(_SERVICES, ports, strict=True))
        self.slack = Slack()
        self.watchdog: tuple[str, str] | None = None  # URL and token of the service, where one runs
        self.people = People(self.url("production", "agent-api"))
        self._programs = directory / "bin"
        self._runs = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with socket.socket() as probe:
            probe.bind(("127.0.0.2", 8080))  # the pods' port; who has it on every address is in our way
        with contextlib.ExitStack() as stack:
            (self.directory / "pods").mkdir(parents=True)
            self._link_programs()
            stack.callback(self._clean)
            self._prepare(self._stores(stack))
            stack.enter_context(self._world())
            (self.directory / "prometheus").mkdir()
            self.prometheus = stack.enter_context(
                PrometheusServer(self.directory / "prometheus", exporter=self, http_sd=True)
            )
            self._begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self, namespace: str, service: str) -> str:
        """Of a Service."""
        return f"http://127.0.0.1:{self._ports[namespace, service]}"

    # -- pipelines -----------------------------------------------------------------------------------------------------

    def run(self, workflow: str, event: Event, commit: Commit, *, gate_for_s: float = GATE_FOR_S) -> Run:
        """Run a workflow of a commit, and see to it that it prints no secret."""
        self._runs += 1
        directory = self.directory / "runs" / f"{self._runs}-{workflow}"
        run = Run(
            commit.tree / ".github" / "workflows" / f"{workflow}.yml",
            event,
            configuration=self._configuration(gate_for_s),
            stand_ins=stand_ins(commit, self.registry, self.python),
            programs=self._programs,
            directory=directory,
            begins=self._heed,
        )
        try:
            run.run()
        finally:
            self.people.rate = QUIET
            self.keep(workflow, run.log)
        tokens = [yaml.safe_load(each)["users"][0]["user"]["token"] for each in self._kubeconfigs.values()]
        assert run.leaked == []
        assert [token for token in tokens if token in run.log] == []
        return run

    def keep(self, name: str, log: str) -> None:
        """Show a log where the test fails, and keep it in the folder PIPELINE_LOGS."""
        print(log)
        if place := os.environ.get("PIPELINE_LOGS"):
            Path(place).mkdir(parents=True, exist_ok=True)
            (Path(place) / f"{self._runs}-{name}.log").write_text(log)

    def deploy(self, commit: Commit, *, gate_for_s: float = GATE_FOR_S) -> Run:
        """Push a commit to main."""
        return self.run("deploy-agent", Event(name="push", sha=commit.sha), commit, gate_for_s=gate_for_s)

    def build(self, commit: Commit) -> str:
        """Build a commit's image without the pipeline, and give its name."""
        name = f"ghcr.io/example/shop/agent-api:{commit.sha}"
        return f"{name}@{self.registry.push(name, commit.tree / AGENT)}"

    def apply(self, overlay: str, image: str) -> None:
        """Apply an overlay whole, as docs/pipeline.md says for the first version."""
        deploy = ROOT / AGENT / "deploy"
        path = f"{self._programs}{os.pathsep}{os.environ['PATH']}"
        command = [str(deploy / "bin" / "render"), overlay, image]
        done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True)
        self.plane.admin("apply", "--filename=-", stdin=done.stdout)

    def _heed(self, job: str) -> None:
        self.people.rate = BUSY if job in ("production", "switch") else QUIET

    def blue_green(self) -> None:
        """Have production as two colours of the second version instead of stable and canary, blue live."""
        for name in ("agent-api", "agent-api-canary"):
            self.production.delete("deployments", name)
        self.apply("production-blue-green", self.second)
        for colour in ("blue", "green"):
            self.production.wait_complete(f"agent-api-{colour}", 90)

    def _configuration(self, gate_for_s: float) -> Configuration:
        variables = {"PROMETHEUS_URL": self.prometheus.url, "GATE_FOR": f"{gate_for_s:g}s", "GATE_CONFIG": GATE_CONFIG}
        secrets = {"KUBE_CONFIG": self._kubeconfigs["production"]}
        if self.watchdog:
            variables["WATCHDOG_URL"], secrets["WATCHDOG_TOKEN"] = self.watchdog
        production = Configuration(
            variables={**variables, "AGENT_PREVIEW_URL": self.url("production", "agent-api-preview")}, secrets=secrets
        )
        staging = Configuration(
            variables={"AGENT_URL": self.url("staging", "agent-api")},
            secrets={"KUBE_CONFIG": self._kubeconfigs["staging"]},
        )
        webhook = f"http://{self.address}/hooks/pipeline"
        return Configuration(
            secrets={"GITHUB_TOKEN": "ghs-of-this-run", "SLACK_WEBHOOK_URL": webhook},
            environments={"production": production, "emergency": production, "staging": staging},
        )

    # -- what is live --------------------------------------------------------------------------------------------------

    def image(self, name: str = "agent-api", cluster: Cluster | None = None) -> str:
        """The image of a Deployment's template."""
        found = (cluster or self.production).get("deployments", name)
        return str(found["spec"]["template"]["spec"]["containers"][0]["image"])

    def pods(self, name: str = "agent-api") -> dict[str, str]:
        """The images of a Deployment's ready pods in production, by UID."""
        return {
            pod["metadata"]["uid"]: pod["spec"]["containers"][0]["image"]
            for pod in self.production.pods(name)
            if "deletionTimestamp" not in pod["metadata"] and _ready(pod)
        }

    def colour(self) -> str:
        """Which colour the Service selects."""
        return str(self.production.get("services", "agent-api")["spec"]["selector"]["track"])

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = 60) -> None:
        """Wait for something."""
        self.production.wait(condition, timeout_s, what=what)

    # -- beginning and end ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Have a first version live; there is one before it, too, to which an emergency can go back."""
        self.first, self.second = (self.build(self.repository.commit(text)) for text in ("the first", "the second"))
        self.apply("production", self.first)
        self.until(lambda: self.production.replicasets("agent-api"), "the first revision")
        self.apply("production", self.second)
        self.production.wait_complete("agent-api", 60)
        self.plane.admin("scale", "--namespace=production", "deployment/agent-api-canary", "--replicas=0")
        self.people.rate = QUIET

    def _stores(self, stack: contextlib.ExitStack) -> dict[str, str]:
        """Redis, PostgreSQL and the local model, as the example's own tests start them."""
        tests = ROOT / AGENT / "tests"
        (self.directory / "stores").mkdir()
        stores = self._start(stack, tests / "stores.py", str(self.directory / "stores"))
        assert stores.stdout
        lines = [stores.stdout.readline().strip() for _ in range(2)]
        found = dict(line.split("=", 1) for line in lines)
        (port,) = free_ports(1)
        self._start(stack, tests / "llm_server.py", str(port))
        return {**found, "OPENAI_API_KEY": "sk-local", "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}

    def _start(self, stack: contextlib.ExitStack, *command: Path | str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", DIE_WITH_PARENT, str(os.getpid()), str(self.python), *map(str, command)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)

        def end() -> None:
            process.send_signal(signal.SIGTERM)
            with process:
                process.wait(timeout=20)

        stack.callback(end)
        return process

    def _prepare(self, secrets: dict[str, str]) -> None:
        """What an administrator does once: namespaces, accounts, Secrets; and the node."""
        with contextlib.suppress(ApiError):
            self.plane.api("POST", "/api/v1/nodes", {"metadata": {"name": NODE}})
        self.plane.admin("apply", "--kustomize", str(ROOT / AGENT / "deploy" / "namespaces"))
        for cluster in (self.staging, self.production):
            cluster.create("secrets", {"metadata": {"name": "agent-api"}, "stringData": secrets})
        self._kubeconfigs = {name: self.plane.kubeconfig_for(name, "agent-deployer").read_text() for name in NAMESPACES}

    def _clean(self) -> None:
        for name in NAMESPACES:
            with contextlib.suppress(ApiError):
                self.plane.api("DELETE", f"/api/v1/namespaces/{name}")
        self.plane.api("DELETE", f"/api/v1/nodes/{NODE}")

    def _link_programs(self) -> None:
        """What the machine of a job has beside the system: kubectl, and the command, so that it is not installed."""
        self._programs.mkdir()
        (self._programs / "kubectl").symlink_to(self.plane.kubectl)
        (self._programs / "rollback-watchdog").symlink_to(Path(sys.executable).with_name("rollback-watchdog"))

    @contextlib.contextmanager
    def _world(self) -> Iterator[None]:
        """Kubelet, Services, people and Slack, in a thread with a loop of its own."""
        kubelet = Kubelet(
            self.plane,
            registry=self.registry,
            python=self.python,
            directory=self.directory / "pods",
            namespaces=NAMESPACES,
        )
        services = Services(self.plane, self._ports)
        failures: list[BaseException] = []
        loop, up = asyncio.new_event_loop(), threading.Event()

        async def play() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(kubelet.run())
                group.create_task(services.run())
                group.create_task(self.people.run())
                group.create_task(serve(self._port, kubelet=kubelet, slack=self.slack))
                up.set()

        task = loop.create_task(play())

        def live() -> None:
            try:
                loop.run_until_complete(task)
            except asyncio.CancelledError:
                pass
            except BaseException as error:
                failures.append(error)
            finally:
                loop.close()

        thread = threading.Thread(target=live, name="site")
        thread.start()
        assert up.wait(10)
        try:
            yield
        finally:
            if thread.is_alive():
                loop.call_soon_threadsafe(task.cancel)
            thread.join(30)
        if failures:
            raise failures[0]


def missing() -> list[str]:
    """The programs that this machine lacks."""
    path = os.pathsep.join([os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
    programs = ("curl", "git", "jq", "postgres", "prometheus", "redis-server")
    return [each for each in programs if not shutil.which(each, path=path)]


def agent_python() -> Path:
    """The Python of a venv with the agent's locked packages, which is made at the first call: twenty seconds."""
    lock = ROOT / AGENT / "requirements-test.txt"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = CACHE / "agent-venv" / digest
    if not (home / "complete").exists():
        venv.create(home, clear=True, with_pip=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(lock)], check=True)
        (home / "complete").touch()
    return home / "bin" / "python"


def _ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
