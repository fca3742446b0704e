"""The tables of the file that stand once, and the whole."""

from enum import StrEnum
from typing import Annotated

import msgspec

from watchdog.config.base import MOST, PauseDuration, Seconds, Section
from watchdog.config.policy import Policy
from watchdog.objects import WorkloadRef


class LogFormat(StrEnum):
    """How log lines look: `auto` writes JSON, but short text on a terminal."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The least important log line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Kubernetes(Section, frozen=True):
    """How the API server is spoken to.

    Args:
        request_timeout: deadline of each request, its repetitions included.
        watch_timeout: the server ends a watch after 80 to 100 % of this, and it is opened again.
        watch_inactivity: silence after which a watch counts as dead; more than the 60 s between two bookmarks.
    """

    request_timeout: Seconds = Seconds(10)
    watch_timeout: Seconds = Seconds(300)
    watch_inactivity: Seconds = Seconds(90)


class Rollback(Section, frozen=True):
    """How long an undo waits.

    Args:
        timeout: how long a command waits until it is complete, the default of `--timeout`; and how long the service
            tries a write again that is refused.
        observed_within: for the controller to see a change that was made just before.
    """

    timeout: Seconds = Seconds(300)
    observed_within: Seconds = Seconds(5)


class Log(Section, frozen=True):
    """The log on standard error."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.AUTO


class Access(Section, frozen=True):
    """How an HTTP server outside the cluster's API is spoken to. Secrets come from files, read anew at each request.

    Args:
        headers: sent with every request, such as `X-Scope-OrgID`.
        bearer_token_file: file with a bearer token.
        username: name for basic authentication.
        password_file: file with its password.
        ca_file: certificates to trust instead of the system's.
        cert_file: client certificate, with `key_file`.
        key_file: its key.
        timeout: deadline of each request, its repetitions included.
    """

    headers: dict[str, str] = msgspec.field(default_factory=dict)
    bearer_token_file: str = ""
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    timeout: Seconds = Seconds(10)


class Prometheus(Access, frozen=True):
    """Where counters are read.

    Args:
        url: base URL with its path prefix; `service://namespace/name:port` goes through the API server's proxy.
        params: extra query parameters, such as Thanos' `partial_response = "false"`.
        step: the grid; the scrape interval.
        delay: how far behind the grid is asked, so that scrapes are in.
    """

    url: str = ""
    params: dict[str, str] = msgspec.field(default_factory=dict)
    step: Seconds = Seconds(15)
    delay: Seconds = Seconds(5)


class Source(StrEnum):
    """Where counters are read."""

    PROMETHEUS = "prometheus"
    PODS = "pods"


class Scheme(StrEnum):
    """How pods are spoken to."""

    HTTP = "http"
    HTTPS = "https"


class Scrape(Section, frozen=True):
    """How pods are read where `source` is `pods`. Their own `prometheus.io/*` annotations come first.

    Args:
        step: the grid; how often every pod of a watched rollout is read.
        timeout: deadline of each pod.
        port: where metrics are, on pods without `prometheus.io/port`; 0 is the only port that the pod declares.
        path: of metrics, on pods without `prometheus.io/path`.
        scheme: on pods without `prometheus.io/scheme`; certificates are not checked, as pods have none for addresses.
        job: the label `job` that their series get.
        max_pods: with more at once nothing is judged.
        max_bytes: the longest that a pod may answer, unpacked.
        concurrency: so many pods are read at once.
    """

    step: Seconds = Seconds(5)
    timeout: Seconds = Seconds(3)
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    path: str = "/metrics"
    scheme: Scheme = Scheme.HTTP
    job: str = "pods"
    max_pods: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 500
    max_bytes: Annotated[int, msgspec.Meta(ge=1024, le=MOST)] = 16_777_216
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 50


class Alertmanager(Access, frozen=True):
    """Where alerts are read anew, since a webhook may be lost.

    Args:
        urls: every peer.
        resync: how often they are asked.
    """

    urls: tuple[str, ...] = ()
    resync: Seconds = Seconds(30)


class Slack(Section, frozen=True):
    """Where people are told. The token is $SLACK_BOT_TOKEN or in `token_file`.

    Args:
        channel: name or id; empty tells nobody.
        token_file: file with a bot token.
        api_url: base URL of Slack's API.
        timeout: deadline of each call.
    """

    channel: str = ""
    token_file: str = ""
    api_url: str = "https://slack.com/api/"
    timeout: Seconds = Seconds(10)


class Server(Section, frozen=True):
    """The HTTP server. Without a credential configured a route answers 401; while a file of tokens cannot be read, 503.

    Args:
        listen: address of the API.
        metrics_listen: address of health and metrics, the only open routes.
        alerts_token_files: files with tokens for `POST /alerts`; two at once while they are rotated.
        api_token_files: files with tokens for the other routes, beside tokens that the API server knows.
        tls_cert_file: certificate, with `tls_key_file`.
        tls_key_file: its key.
        client_ca_file: whose client certificates may post alerts.
    """

    listen: str = "0.0.0.0:8080"
    metrics_listen: str = "0.0.0.0:9102"
    alerts_token_files: tuple[str, ...] = ()
    api_token_files: tuple[str, ...] = ()
    tls_cert_file: str = ""
    tls_key_file: str = ""
    client_ca_file: str = ""


class LimitSettings(Section, frozen=True):
    """What keeps the service from doing too much; 0 is off.

    Args:
        budget: actions per workload and day.
        cool_down: after an action, until the next of the same workload.
        breaker: so many breaches of different images in a namespace, and nobody acts there without a person.
        breaker_all: so many in all namespaces together, and nobody acts anywhere without one.
        breaker_window: how far back they count.
        approval: how long an approval is waited for.
        recovery: how long the signal may take to be healthy again after an action.
    """

    budget: Annotated[int, msgspec.Meta(ge=0, le=MOST)] = 2
    cool_down: PauseDuration = PauseDuration(1800)
    breaker: Annotated[int, msgspec.Meta(ge=0, le=MOST)] = 3
    breaker_all: Annotated[int, msgspec.Meta(ge=0, le=MOST)] = 10
    breaker_window: Seconds = Seconds(600)
    approval: Seconds = Seconds(1800)
    recovery: Seconds = Seconds(300)


class RecordKind(StrEnum):
    """What a record is kept in."""

    CONFIG_MAP = "configmap"
    SECRET = "secret"  # noqa: S105  (a kind of object)


class Records(Section, frozen=True):
    """Where records are kept.

    Args:
        kind: configmap or secret.
        namespace: empty for the service's own, $POD_NAMESPACE.
    """

    kind: RecordKind = RecordKind.CONFIG_MAP
    namespace: str = ""


class Config(Section, frozen=True):
    """The whole file."""

    source: Source = Source.PROMETHEUS
    kubernetes: Kubernetes = Kubernetes()
    prometheus: Prometheus = Prometheus()
    scrape: Scrape = Scrape()
    alertmanager: Alertmanager = Alertmanager()
    slack: Slack = Slack()
    server: Server = Server()
    limits: LimitSettings = LimitSettings()
    records: Records = Records()
    rollback: Rollback = Rollback()
    log: Log = Log()
    policies: tuple[Policy, ...] = ()

    @property
    def step_s(self) -> float:
        """The grid of judging, in seconds."""
        return float(self.scrape.step if self.source is Source.PODS else self.prometheus.step)

    @property
    def read_s(self) -> float:
        """How long counters may take to be read at a step, in seconds."""
        return float(self.scrape.step if self.source is Source.PODS else self.prometheus.timeout)

    def policy_for(self, ref: WorkloadRef) -> Policy | None:
        """The first policy that may be about a workload, by name."""
        return next((policy for policy in self.policies if policy.matches(ref)), None)
