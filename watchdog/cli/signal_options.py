"""Which signals a command judges by: those of its options, else those of the policy."""

from collections.abc import Mapping

import msgspec

from watchdog import selectors
from watchdog.config import Signal
from watchdog.engine.fleet import Match, WorkloadRole
from watchdog.errors import UsageError
from watchdog.objects import WorkloadRef


def given(bad: str, total: str) -> Mapping[str, Signal]:
    """The signal of the command line; empty where the policy's are meant. Raises `UsageError`."""
    if bool(bad) != bool(total):
        raise UsageError("--bad goes with --total: write both, or neither for the signals of the policy")
    if not bad:
        return {}
    for option, text in (("--bad", bad), ("--total", total)):
        try:
            selectors.parse(text)
        except ValueError as error:
            raise UsageError(f"{option} {error}") from error
    return {"given": Signal(total=total, bad=bad)}


def of_policy(workload: WorkloadRef, match: Match | None) -> Mapping[str, Signal]:
    """The signals of the policy that matches; those that join by a label seen from this workload's side.

    Raises:
        UsageError: there are none.
    """
    if match is None or not match.policy.signals:
        raise UsageError(
            f"no policy has signals for {workload}: give --bad and --total,"
            f" or have them proposed by: rollback-watchdog init {workload}"
        )
    if match.side is not WorkloadRole.STABLE:
        return match.policy.signals
    replace = msgspec.structs.replace
    return {
        name: replace(signal, candidate=signal.stable, stable=signal.candidate)
        for name, signal in match.policy.signals.items()
    }
