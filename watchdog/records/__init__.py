"""Records in the cluster: one ConfigMap or Secret for each rollout under watch.

form    a record as text: its schema, and what goes first when it grows too long
store   reading, writing, and what need not be kept any more
"""

from watchdog.records.store import RecordStore

__all__ = ["RecordStore"]
