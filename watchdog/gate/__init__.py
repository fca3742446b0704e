"""The gate of a pipeline: it judges the version that is live at its start, and ends with a verdict.

The same counters, rule and actions as the service's, for one rollout and on a person's word: guards that protect the
workload bind it, the mode and the judgement guards do not. Beside a running service it never acts a second time.

request     what is asked, and the outside
loop        from step to step until something ends it
pinned      the version that is judged, and what it is compared with
feed        reads pods and counters for the service's own `Watch`
rules       what the rule is held to, from the past
tally       the gate's clock and numbers beside the `Watch`
others      who else may end it: the service, or whoever deploys
acting      what it does about a bad version
report      what is said of its end
"""

from watchdog.gate.loop import Gate
from watchdog.gate.report import Report
from watchdog.gate.request import GatePorts, GateRequest

__all__ = ["Gate", "GatePorts", "GateRequest", "Report"]
