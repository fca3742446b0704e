"""What other workloads count while a rollout is judged, step by step: an outage shows in them, too."""

from collections.abc import Collection, Sequence

from watchdog.engine.history import place_of
from watchdog.judge.blocks import Counts, Reading, Row
from watchdog.judge.past import spans
from watchdog.judge.vetoes import Bystander
from watchdog.objects import WorkloadRef


class Bystanders:
    """The other workloads of one rollout and signal, as they were chosen at its start.

    Args:
        chosen: who.
        step_s: the grid.
    """

    def __init__(self, chosen: Sequence[Bystander], *, step_s: float) -> None:
        self.refs = frozenset(WorkloadRef(*each.name.split("/", 1)) for each in chosen)
        self._places = frozenset((ref.namespace, ref.name) for ref in self.refs)
        self._step_s = step_s
        self._last: tuple[Reading, ...] = ()

    def take(self, reading: Reading, *, gone: Collection[WorkloadRef]) -> dict[str, Counts]:
        """Give what each counted since the reading before; not of those that are gone."""
        both, self._last = (*self._last, reading), (reading,)
        counts = {str(ref): Counts() for ref in self.refs if ref not in gone}
        for span in spans(both, self._pod_of, step_s=self._step_s, restarts={}):
            for pod, delta in span.pods.items():
                name = pod.rpartition("-")[0].rpartition("-")[0]
                if name in counts:
                    counts[name] += delta
        return counts

    def _pod_of(self, row: Row) -> str:
        return f"{row.namespace}/{row.pod}" if place_of(row, joined=False) in self._places else ""
