"""What differs between the topologies, one row for each."""

from collections.abc import Mapping

import msgspec

from watchdog.judge.sequential import Controls
from watchdog.model import Action, Topology


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """One topology.

    Args:
        controls: what a candidate is compared with.
        side_by_side: the other side takes traffic at the same time, so that its requests are a control.
        whole: once it is alone, the candidate has all the traffic of the workload, as the day before had.
        action: what a breach leads to, where the policy does not say.
    """

    controls: Controls
    side_by_side: bool = True
    whole: bool = True
    action: Action = Action.UNDO

    def controls_with(self, strategy: str) -> Controls:
        """The controls under a Deployment's strategy: with `Recreate` no old pod is beside the new ones."""
        alone = self.controls is Controls.BOTH and strategy == "Recreate"
        return Controls.HISTORICAL if alone else self.controls


TRAITS: Mapping[Topology, Traits] = {
    Topology.ROLLING: Traits(controls=Controls.BOTH),
    Topology.CANARY: Traits(controls=Controls.CONCURRENT, whole=False, action=Action.SCALE_DOWN),
    Topology.BLUE_GREEN: Traits(controls=Controls.HISTORICAL, side_by_side=False, action=Action.SWITCH_BACK),
}
