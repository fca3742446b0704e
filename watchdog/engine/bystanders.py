"""What other workloads count while a rollout is judged, step by step: an outage shows in them, too."""

from collections.abc import Collection, Sequence

from watchdog.engine.baselines import deployment_of, place_of
from watchdog.judge.blocks import Counts, Reading, Sample, ScrapeTarget
from watchdog.judge.objections import Bystander
from watchdog.judge.past import delta, newest
from watchdog.objects import WorkloadRef


class Bystanders:
    """The other workloads of one rollout and signal, as they were chosen at its start."""

    def __init__(self, chosen: Sequence[Bystander], *, step_s: float) -> None:
        self.refs = frozenset(WorkloadRef(*each.name.split("/", 1)) for each in chosen)
        self._names = {
            ref.namespace: {each.name for each in self.refs if each.namespace == ref.namespace} for ref in self.refs
        }
        self._step_s = step_s
        self._last: dict[tuple[str, str], Sample] = {}

    def take(self, reading: Reading, *, gone: Collection[WorkloadRef]) -> dict[str, Counts]:
        """Give what each counted since the reading before; not of those that are gone."""
        counts = {str(ref): Counts() for ref in self.refs if ref not in gone}
        mine = [sample for namespace, names in self._names.items() for sample in reading.of(namespace, names)]
        for key, (_, sample) in newest(Reading(reading.step, tuple(mine)), self._pod_of, self._step_s).items():
            name, last = deployment_of(key[0]), self._last.get(key)
            # What is seen for the first time was counted nobody knows when.
            if name in counts and last is not None and (counted := delta(sample, last)):
                counts[name] += counted
            self._last[key] = sample
        return counts

    def _pod_of(self, row: ScrapeTarget) -> str:
        namespace, name = place_of(row, joined=False)
        return f"{namespace}/{row.pod}" if name in self._names.get(namespace, ()) else ""
