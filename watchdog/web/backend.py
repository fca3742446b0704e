"""What the HTTP server needs from the engine."""

from collections.abc import Sequence
from typing import Protocol

from watchdog.decide.evaluations import Posted, Taken
from watchdog.decide.plan import Request
from watchdog.decide.record import Answer, Record
from watchdog.model import Alert, IncidentId, Result
from watchdog.objects import WorkloadRef


class Backend(Protocol):
    """The engine as HTTP sees it. Every coroutine ends by deadlines of its own, and raises `ClusterError`."""

    def alive(self) -> bool:
        """Whether the event loop's heartbeat is recent."""

    def ready(self) -> bool:
        """Whether this replica does its part, leading or following."""

    def accepting(self) -> bool:
        """Whether requests are taken: not before the first list of Deployments, as a follower, or while stopping."""

    def take(self, alerts: Sequence[Alert]) -> bool:
        """Attribute alerts from memory and hold them, all or none; False where they could not be held."""

    def resync(self) -> None:
        """Ask every Alertmanager at once for what fires: a webhook was lost on the way here."""

    async def rollback(self, ref: WorkloadRef, request: Request, *, dry_run: bool, key: str) -> Result:
        """Undo on behalf of a person and wait for the end of it; the policy's `gitops_act` is not yet in `request`.

        A `key` that is not empty names one action of its caller on a workload: whoever repeats all of it is given the
        same result, also while the first call is still under way. What failed without a write is tried anew.

        Raises:
            KeyReused: the key came with another request before.
        """

    async def evaluated(self, ref: WorkloadRef, posted: Posted) -> Taken:
        """Take evaluations of a version, and keep them before this comes back.

        Raises:
            NotFound: no policy matches such a Deployment.
            UsageError: its policy takes none, or the version is not live.
        """

    async def records(self) -> tuple[Record, ...]:
        """Every record."""

    async def record(self, incident: IncidentId) -> Record | None:
        """One record."""

    def rollouts(self) -> tuple[Record, ...]:
        """What is under watch now."""

    async def answer(self, incident: IncidentId, answer: Answer) -> Record:
        """Take what a person says, and give the record as it is then.

        Raises:
            UsageError: nobody is being asked.
            NotFound: there is no such incident.
        """
