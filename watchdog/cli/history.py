"""``history``: revisions, their causes and marks; and the way to lift a condemnation."""

import datetime as dt
from contextlib import suppress

import click
import msgspec

from watchdog.app import Parts, assemble
from watchdog.cli.options import Common, Workload, common, runs
from watchdog.cli.output import GOOD, Form, echo, print_json, print_table, revision_fields
from watchdog.decide import marks
from watchdog.decide.patches import absolve
from watchdog.decide.revisions import History, describe, read_history
from watchdog.errors import ClusterError, UsageError
from watchdog.model import IncidentId, by_gate
from watchdog.objects import CHANGE_CAUSE, ReplicaSet, Snapshot, WorkloadRef

_CLAIM = ", a claim: no record of the service or a gate proves it"


@click.command(short_help="Show revisions and their marks.")
@click.argument("workload", type=Workload())
@click.option(
    "--absolve", "absolved", type=click.IntRange(min=1), metavar="N", help="Lift the condemnation of revision N."
)
@common
@runs
async def history(shared: Common, *, workload: WorkloadRef, absolved: int | None) -> int:
    """Show the revisions of a Deployment: which one is live, which passed, which an incident condemned."""
    async with assemble(shared.config, kubeconfig=shared.kubeconfig, context=shared.context) as parts:
        snapshot = await parts.snapshot(workload)
        lifted: str | None = None
        if absolved is not None:
            lifted = await _absolve(parts, snapshot, absolved)
            snapshot = await parts.snapshot(workload)
        proven = await _proven(parts, snapshot)
    if shared.form is Form.JSON:
        print_json("history", _fields(snapshot, proven, absolved=lifted))
        return GOOD
    if absolved is not None:
        what = f"is absolved of incident {lifted}" if lifted else "was not condemned: nothing to lift"
        echo(f"{workload}: revision {absolved} {what}")
    _print(snapshot, proven)
    return GOOD


async def _proven(parts: Parts, snapshot: Snapshot) -> frozenset[IncidentId]:
    """The incidents that marks name and whose record tells of a write; a mark alone is a claim of whoever wrote it."""
    last = marks.read_last_rollback(snapshot.deployment.metadata.annotations, now=dt.datetime.now(dt.UTC))
    named = {last.incident} if last else set()
    named |= {incident for item in read_history(snapshot).all if (incident := marks.condemned_by(item))}
    found = set()
    for incident in named:
        for each in (incident, by_gate(incident)):
            with suppress(ClusterError):  # such as for want of the right to read records
                record = await parts.records().get(each, timeout_s=parts.request_s)
                if record and record.write_at:
                    found.add(incident)
    return frozenset(found)


async def _absolve(parts: Parts, snapshot: Snapshot, number: int) -> str | None:
    """Lift the condemnation of every ReplicaSet of that number; the incident, or None where there was none."""
    found = [item for item in read_history(snapshot).numbered if item.revision == number]
    if not found:
        raise UsageError(f"--absolve {number}: {snapshot.deployment.ref} has no such revision; see the list without it")
    lifted = None
    for replicaset in found:
        incident = marks.condemned_by(replicaset)
        if incident:
            namespace, name = replicaset.metadata.namespace, replicaset.metadata.name
            await parts.cluster.patch_replicaset(namespace, name, absolve(replicaset), timeout_s=parts.request_s)
            lifted = incident
    return lifted


def _newest_first(history: History) -> list[ReplicaSet]:
    return sorted(history.all, key=lambda item: item.revision or 0, reverse=True)


def _fields(snapshot: Snapshot, proven: frozenset[IncidentId], *, absolved: str | None) -> dict[str, object]:
    found = read_history(snapshot)
    last = marks.read_last_rollback(snapshot.deployment.metadata.annotations, now=dt.datetime.now(dt.UTC))
    revisions = [
        {
            **revision_fields(describe(item)),
            "revision": item.revision,
            "live": item is found.live,
            "created": msgspec.to_builtins(item.metadata.creation_timestamp),
            "cause": item.metadata.annotations.get(CHANGE_CAUSE),
            "condemned_by": marks.condemned_by(item),
            "passed_at": marks.passed_at(item),
        }
        for item in _newest_first(found)
    ]
    return {
        "namespace": snapshot.deployment.ref.namespace,
        "deployment": snapshot.deployment.ref.name,
        "revisions": revisions,
        "last_rollback": msgspec.to_builtins(last) if last else None,
        "proven": sorted(proven),
        "absolved": absolved,
    }


def _print(snapshot: Snapshot, proven: frozenset[IncidentId]) -> None:
    found = read_history(snapshot)
    rows = []
    for item in _newest_first(found):
        is_live = item is found.live
        created = item.metadata.creation_timestamp
        style = "bold" if is_live else ""
        cells = (
            str(item.revision or "none"),
            item.hash,
            f"{created:%Y-%m-%d %H:%M:%S}" if created else "",
            ", ".join(describe(item).images.values()),
            item.metadata.annotations.get(CHANGE_CAUSE, ""),
            ", ".join(_marks(item, proven, is_live=is_live)),
        )
        rows.append([(cell, style) for cell in cells])
    print_table(("REVISION", "HASH", "CREATED", "IMAGES", "CAUSE", "MARKS"), rows)
    last = marks.read_last_rollback(snapshot.deployment.metadata.annotations, now=dt.datetime.now(dt.UTC))
    if last:
        cause = f": {last.cause}" if last.cause else ""
        echo(
            f"Last rollback: {last.from_revision} → {last.to_revision} at {last.at:%Y-%m-%dT%H:%M:%SZ}"
            f" by {last.by}{cause} (incident {last.incident}{'' if last.incident in proven else _CLAIM})"
        )


def _marks(replicaset: ReplicaSet, proven: frozenset[IncidentId], *, is_live: bool) -> list[str]:
    found = ["live"] if is_live else []
    if incident := marks.condemned_by(replicaset):
        found.append(f"condemned by {incident}{'' if incident in proven else _CLAIM}")
    if passed := marks.passed_at(replicaset):
        found.append(f"passed {passed:%Y-%m-%dT%H:%M:%SZ}")
    return found
