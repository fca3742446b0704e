"""The gate of a pipeline: it judges the version that is live at its start, and ends with a verdict.

The same counters, rule and actions as the service's, for one rollout and on a person's word: guards that protect the
workload bind it, the mode and the judgement guards do not. Beside a running service it never acts a second time.
"""

from watchdog.gate.loop import Gate
from watchdog.gate.report import Report
from watchdog.gate.request import GatePorts, GateRequest

__all__ = ["Gate", "GatePorts", "GateRequest", "Report"]
