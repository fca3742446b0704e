"""What the types of the settings do not say: each no names the setting and the cure."""

import re

from watchdog import selectors
from watchdog.config.policy import Policy, Signal
from watchdog.config.sections import Config, Source
from watchdog.errors import ConfigError
from watchdog.model import Action
from watchdog.objects import is_name

_URL = re.compile(r"(https?://[^\s/?#]+|service://[^\s/]+/[^\s/:]+:[^\s/]+)(/[^\s]*)?")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:\[\]]*):[0-9]{1,5}")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_SELECTOR = re.compile(r"\s*[^\s=,!]+=[^\s=,]*(\s*,\s*[^\s=,!]+=[^\s=,]*)*\s*")


def check(config: Config) -> None:
    """What the types do not say."""
    if config.kubernetes.watch_inactivity <= 60:
        problem = 'bookmarks come every 60 s; a shorter limit would drop watches that live: write more than "60s"'
        raise ConfigError("kubernetes.watch_inactivity", problem)
    for path, url in (
        ("prometheus.url", config.prometheus.url),
        *((f"alertmanager.urls[{index}]", url) for index, url in enumerate(config.alertmanager.urls)),
        ("slack.api_url", config.slack.api_url),
    ):
        if url and not _URL.fullmatch(url):
            raise ConfigError(path, f"{url!r} is no URL; write http://…, https://… or service://namespace/name:port")
    for path, access, urls in (
        ("prometheus", config.prometheus, (config.prometheus.url,)),
        ("alertmanager", config.alertmanager, config.alertmanager.urls),
    ):
        if any(url.startswith("service://") for url in urls) and (
            access.headers or access.bearer_token_file or access.username
        ):
            problem = "is not sent through the API server's proxy, which service:// uses; write an http:// URL"
            raise ConfigError(f"{path}.headers", problem)
        for one, other in (("cert_file", "key_file"), ("username", "password_file")):
            if bool(getattr(access, one)) != bool(getattr(access, other)):
                raise ConfigError(f"{path}.{one}", f"goes with {path}.{other}; write both or neither")
    if bool(config.server.tls_cert_file) != bool(config.server.tls_key_file):
        raise ConfigError("server.tls_cert_file", "goes with server.tls_key_file; write both or neither")
    if config.server.client_ca_file and not config.server.tls_cert_file:
        raise ConfigError("server.client_ca_file", "client certificates need TLS; write server.tls_cert_file too")
    for path, address in (("listen", config.server.listen), ("metrics_listen", config.server.metrics_listen)):
        if not _ADDRESS.fullmatch(address) or int(address.rpartition(":")[2]) > 65535:
            raise ConfigError(f"server.{path}", f'{address!r} is no address; write host:port, such as "0.0.0.0:8080"')
    if config.scrape.timeout >= config.scrape.step:
        raise ConfigError(
            "scrape.timeout", "a pod must have answered before the next step: write less than scrape.step"
        )
    if not config.scrape.path.startswith("/"):
        raise ConfigError("scrape.path", f'{config.scrape.path!r} is no path; write one such as "/metrics"')
    if not config.scrape.job:
        raise ConfigError("scrape.job", "is empty; write what the label job shall be")
    for index, policy in enumerate(config.policies):
        path = f"policies[{index}]"
        _check_policy(policy, path)
        if policy.signals and config.source is Source.PROMETHEUS and not config.prometheus.url:
            problem = f'missing; {path} has signals, and Prometheus is where they are read, or write source = "pods"'
            raise ConfigError("prometheus.url", problem)
        if config.source is Source.PODS:
            for name, signal in policy.signals.items():
                _check_read_here(signal, f"{path}.signals.{name}")
        for earlier in config.policies[:index]:
            _check_apart(policy, earlier, path)


def _check_policy(policy: Policy, path: str) -> None:
    if not policy.name:
        raise ConfigError(f"{path}.name", "is empty; give the policy a name")
    if not policy.namespaces:
        raise ConfigError(f"{path}.namespaces", "is empty; name at least one namespace")
    tracks = tuple(name for name in (policy.stable, policy.candidate) if name)
    if len(tracks) == 1:
        missing = "stable" if policy.candidate else "candidate"
        raise ConfigError(f"{path}.{missing}", "missing; a canary has a candidate and a stable Deployment: write both")
    if tracks and policy.workloads:
        raise ConfigError(f"{path}.workloads", "does not go with candidate and stable, which name the workloads")
    if tracks and policy.stable == policy.candidate:
        raise ConfigError(f"{path}.candidate", "is the stable Deployment; name the other one")
    _check_service(policy, path)
    by_name = tuple(name for name in tracks if "=" not in name)
    for key, text in (("stable", policy.stable), ("candidate", policy.candidate)):
        if "=" in text and not _SELECTOR.fullmatch(text):
            problem = f'{text!r} is no selector; write labels of the pod template, such as "app=web,track=stable"'
            raise ConfigError(f"{path}.{key}", problem)
    for key, names in (("namespaces", policy.namespaces), ("workloads", policy.workloads), ("stable", by_name)):
        for name in names:
            if not is_name(name):
                raise ConfigError(f"{path}.{key}", f"{name!r} is not a name that Kubernetes allows")
            if key == "namespaces" and name.startswith("kube-") and not (policy.workloads or by_name):
                problem = f"{name} belongs to the cluster; name the Deployments you mean with workloads = [...]"
                raise ConfigError(f"{path}.{key}", problem)
    if policy.action is Action.SCALE_DOWN and not policy.candidate:
        problem = (
            "scale-down would take every pod of a Deployment that has no stable one beside it: write undo or pause"
        )
        raise ConfigError(f"{path}.action", problem)
    if policy.evaluations.enabled and "evaluations" in policy.signals:
        problem = "is the name of the evaluations that are posted: give this signal another"
        raise ConfigError(f"{path}.signals.evaluations", problem)
    for name, signal in policy.signals.items():
        _check_signal(signal, f"{path}.signals.{name}")


def _check_service(policy: Policy, path: str) -> None:
    """What a blue-green policy needs, and what goes with no other."""
    if not policy.service:
        if policy.action is Action.SWITCH_BACK:
            problem = "switch-back needs the Service that is switched: write service, or another action"
            raise ConfigError(f"{path}.action", problem)
        return
    if policy.candidate or policy.stable:
        raise ConfigError(f"{path}.service", "does not go with candidate and stable: blue-green is no canary")
    if not is_name(policy.service):
        raise ConfigError(f"{path}.service", f"{policy.service!r} is not a name that Kubernetes allows")
    if len(set(policy.workloads)) != 2 or len(policy.workloads) != 2:
        problem = 'blue-green has two colours; name both Deployments, such as ["agent-blue", "agent-green"]'
        raise ConfigError(f"{path}.workloads", problem)
    if policy.action not in (None, Action.SWITCH_BACK):
        raise ConfigError(
            f"{path}.action", "a blue-green policy only switches back: write switch-back, or leave it out"
        )


def _check_signal(signal: Signal, path: str) -> None:
    if not signal.total:
        problem = "missing; errors per second cannot be judged, so write the selector of all requests"
        raise ConfigError(f"{path}.total", problem)
    if bool(signal.bad) == bool(signal.good):
        raise ConfigError(f"{path}.bad", "write either bad (what failed) or good (what succeeded), one of the two")
    for key, text in (("bad", signal.bad), ("good", signal.good), ("total", signal.total)):
        if text:
            try:
                selectors.parse(text)
            except ValueError as error:
                raise ConfigError(f"{path}.{key}", str(error)) from error
    if bool(signal.join) != bool(signal.candidate and signal.stable):
        problem = "join needs the values of that label: write join, candidate and stable, or none of them"
        raise ConfigError(f"{path}.join", problem)
    if signal.join and not _LABEL.fullmatch(signal.join):
        raise ConfigError(f"{path}.join", f"{signal.join!r} is no label name")


def _check_read_here(signal: Signal, path: str) -> None:
    """Whether the selectors can be evaluated without Prometheus."""
    for key, text in (("bad", signal.bad), ("good", signal.good), ("total", signal.total)):
        if text:
            try:
                selectors.tester(selectors.parse(text))
            except ValueError as error:
                raise ConfigError(f"{path}.{key}", str(error)) from error


def _check_apart(policy: Policy, other: Policy, path: str) -> None:
    """No workload may match two policies, as far as names tell; the rest shows when Deployments are seen."""
    if policy.name == other.name:
        raise ConfigError(f"{path}.name", f"{policy.name!r} is the name of two policies; rename one")
    shared = set(policy.namespaces) & set(other.namespaces)
    if policy.opt_in or other.opt_in or not shared:
        return  # the annotation names one policy, or they never meet
    names, others = policy.named, other.named
    both = set(names or ()) & set(others or ())
    if both or (names is None and not other.selects) or (others is None and not policy.selects):
        what = f"{min(shared)}/{min(both) if both else '*'}"
        problem = f"{policy.name!r} and {other.name!r} both match {what}; narrow one of them with workloads = [...]"
        raise ConfigError(path, problem)
