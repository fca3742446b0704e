"""What is asked of a gate, the outside that it works with, and how one look at it can end it."""

import msgspec

from watchdog.config import Policy
from watchdog.engine.act import Actor
from watchdog.judge.blocks import Verdict
from watchdog.model import Action, Cause, Outcome, Result
from watchdog.objects import WorkloadRef
from watchdog.ports import Cluster, Signals, Store


class GateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a gate.

    Args:
        stable: the Deployment beside it; the workload itself where there is none.
        image: what the version must run; empty for whatever it is.
        policy: signals, sensitivity, conditions and GitOps: that of the workload or the defaults, as the caller changed
            it. Its `bake` is how long is judged, from the first judged block.
        step_s: the grid, in seconds.
        action: what a breach leads to; None for nothing.
        early: end with healthy as soon as that is proven.
        baseline: usual share of failures, where it is told.
        dry_run: let the API server check the write, and do nothing.
    """

    workload: WorkloadRef
    stable: WorkloadRef
    policy: Policy
    step_s: float
    action: Action | None
    cause: Cause
    image: str = ""
    early: bool = False
    dry_run: bool = False
    baseline: float | None = None


class GatePorts(msgspec.Struct, frozen=True, kw_only=True):
    """The outside, and how long it may take, in seconds.

    Args:
        cluster: where the workload is.
        signals: where its counters are read.
        store: the records of the running service.
        actor: carries the action out.
        request_s: for each answer of the API server.
        read_s: for the counters of one step.
        observed_s: for the controller to see a change that was made just before.
        held_s: for an incident of the running service to come to its end.
    """

    cluster: Cluster
    signals: Signals
    store: Store
    actor: Actor
    request_s: float
    read_s: float
    observed_s: float
    held_s: float


class End(msgspec.Struct, frozen=True, kw_only=True):
    """Why a gate ends.

    Args:
        verdict: what is thought of the version.
        outcome: what became of it; None where nothing was to be done.
        detail: one sentence about that.
        service: the running service found it bad, and not this gate.
        result: the action of this gate, where there was one.
    """

    verdict: Verdict
    outcome: Outcome | None = None
    detail: str = ""
    service: bool = False
    result: Result | None = None
