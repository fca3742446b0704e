"""The plays: what goes out, what is promised of the end, and the settings, all in one place.

The durations are short so that a play fits into a minute; a real policy keeps the defaults.
"""

from collections.abc import Mapping

import msgspec

from watchdog.model import Outcome

NAMESPACE = "shop"
RECORDS = "rollback-watchdog"
STABLE, CANDIDATE = "web", "web-canary"
GOOD, NEW, FIXED = "shop/web:v1", "shop/web:v2", "shop/web:v3"

_PODS = """\
source = "pods"            # the watchdog scrapes the pods itself
[scrape]
step = "1s"                # default 5s
timeout = "800ms"
"""
_PROMETHEUS = """\
[prometheus]               # it scrapes the pods twice a second
url = "{url}"
step = "2s"                # default 15s
delay = "2s"               # default 5s
"""
_CONFIG = """\
{source}[server]
listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
[limits]
recovery = "15s"           # default 5m
[records]
namespace = "rollback-watchdog"
[log]
level = "error"
[[policies]]
name = "web"
namespaces = ["shop"]
mode = "enforce"
rule = "threshold"         # default sequential, which needs a past to act by; here is none
grace = "1s"               # default 30s
bake = "{bake_s}s"                # default 15m
max_watch = "{max_watch_s}s"
{canary}[policies.signals.errors]
bad = 'http_requests_total{{code=~"5.."}}'
total = "http_requests_total"
[policies.threshold]       # 5 % of at least 20 requests, in two steps running
window = "5s"              # default 1m
"""
_CANARY = f'stable = "{STABLE}"\ncandidate = "{CANDIDATE}"\n'


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A play.

    Args:
        name: on the command line.
        sentence: what happens.
        told: annotations of the new version's pods, without `sim/`.
        canary: one candidate pod beside nine stable ones, instead of a rolling update of six.
        acts: whether the watchdog is to act.
        outcomes: with which the new version's record may end.
        said: a word that the record has to hold.
        outage: the upstream of all versions fails for a while.
        hotfix: somebody ships a fixed version as soon as the new one fails.
        sawtooth: every version has several workers behind one /metrics.
        deadline_s: of the Deployment's progress.
    """

    name: str
    sentence: str
    told: Mapping[str, str] = {}
    canary: bool = False
    acts: bool = False
    outcomes: tuple[Outcome, ...]
    said: str = ""
    outage: bool = False
    hotfix: bool = False
    sawtooth: bool = False
    deadline_s: int = 600

    def config(self, *, fast: bool, prometheus: str = "") -> str:
        """The service's configuration, as it is printed; with the URL of a Prometheus that judges by that."""
        return _CONFIG.format(
            source=_PROMETHEUS.format(url=prometheus) if prometheus else _PODS,
            bake_s=20 if prometheus else 6 if fast else 10,
            max_watch_s=30 if prometheus and self.deadline_s < 600 else 12 if self.deadline_s < 600 else 90,
            canary=_CANARY if self.canary else "",
        )


_LEFT = (Outcome.PASSED, Outcome.UNJUDGED)
_ALL = (
    Scenario(
        name="bad-rolling",
        sentence="a version that fails 30 % of its requests goes out as a rolling update, and is undone",
        told={"errors": "0.3"},
        acts=True,
        outcomes=(Outcome.RECOVERED,),
        said="threshold",
    ),
    Scenario(
        name="bad-canary",
        sentence="one bad canary beside nine stable pods is scaled to zero",
        told={"errors": "0.3"},
        canary=True,
        acts=True,
        outcomes=(Outcome.RECOVERED,),
        said="threshold",
    ),
    Scenario(
        name="slow-burn",
        sentence="a version that fails only 8 % of its requests is undone, too",
        told={"errors": "0.08"},
        acts=True,
        outcomes=(Outcome.RECOVERED,),
        said="threshold",
    ),
    Scenario(
        name="crash-loop",
        sentence="a version that crashes at its start is undone before it takes a request",
        told={"mode": "crash-loop", "ready-after": "5s"},
        acts=True,
        outcomes=(Outcome.RECOVERED,),
        said="crash-loop",
    ),
    Scenario(name="healthy", sentence="a good version goes out, and nothing happens", outcomes=(Outcome.PASSED,)),
    Scenario(
        name="shared-outage",
        sentence="what all versions call is down for a while: the canary is not to blame, and nothing happens",
        canary=True,
        outcomes=_LEFT,
        outage=True,
    ),
    Scenario(
        name="hotfix-race",
        sentence="somebody ships a fix before the bad version is judged: the fix stays",
        told={"errors": "0.3"},
        outcomes=(Outcome.SUPERSEDED,),
        hotfix=True,
    ),
    Scenario(
        name="saw-tooth",
        sentence="several workers behind one /metrics make counters that cannot be believed: blind, nothing happens",
        outcomes=(Outcome.UNJUDGED,),
        said="not-monotonic",
        sawtooth=True,
    ),
    Scenario(
        name="pending",
        sentence="the cluster has no room for the new pods: not their fault, nothing happens",
        told={"mode": "unschedulable"},
        outcomes=(Outcome.UNJUDGED,),
        said="pending",
        deadline_s=3,
    ),
)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
