"""``incidents``, ``approve`` and ``dismiss``: the records of the service, and a person's answer to its question."""

import datetime as dt

import click
import msgspec

from watchdog.app import assemble
from watchdog.cli.options import Common, common, runs
from watchdog.cli.output import GOOD, NOT_DONE, Form, echo, print_json, print_table
from watchdog.decide import marks
from watchdog.decide.patches import add, annotation, encode, test
from watchdog.decide.record import Planned, Record, State
from watchdog.errors import UsageError
from watchdog.model import IncidentId

_namespace = click.option(
    "-n", "--namespace", metavar="NAME", default="", help="Where the records are [default: the service's namespace]."
)


@click.command(short_help="Show the records of rollouts under watch.")
@click.argument("incident", metavar="[ID]", required=False)
@_namespace
@common
@runs
async def incidents(shared: Common, *, incident: str | None, namespace: str) -> int:
    """List the records, the newest first; with an ID, show everything about one."""
    async with assemble(shared.config, kubeconfig=shared.kubeconfig, context=shared.context) as parts:
        store = parts.records(namespace)
        if incident:
            found = [_known(await store.get(IncidentId(incident), timeout_s=parts.request_s), incident)]
        else:
            everything = await store.all(timeout_s=parts.request_s)
            found = sorted(everything, key=lambda record: (record.started, record.id), reverse=True)
    if shared.form is Form.JSON:
        print_json(
            "incidents",
            {"incidents": [_all_fields(record) if incident else _row(record) for record in found]},
        )
    elif incident:
        for line in _describe(found[0]):
            echo(line)
    else:
        rows = [[str(cell or "") for cell in _row(record).values()] for record in found]
        print_table(("ID", "WORKLOAD", "STATE", "OUTCOME", "CAUSE", "STARTED"), rows)
    return GOOD


def _answers(verb: marks.Verb, summary: str) -> click.Command:
    """The command with which a person says this."""

    @click.command(verb, short_help=summary)
    @click.argument("incident", metavar="ID")
    @_namespace
    @common
    @runs
    async def command(shared: Common, *, incident: str, namespace: str) -> int:
        async with assemble(shared.config, kubeconfig=shared.kubeconfig, context=shared.context) as parts:
            record = _known(
                await parts.records(namespace).get(IncidentId(incident), timeout_s=parts.request_s), incident
            )
            asked = record.state is State.ASKING
            if asked:
                said = add(annotation(marks.ANSWER), marks.write_answer(record.id, verb))
                patch = encode((test("/metadata/uid", record.rollout.uid), said))
                await parts.cluster.patch_deployment(record.workload, patch, dry_run=False, timeout_s=parts.request_s)
        if shared.form is Form.JSON:
            print_json(verb, {"incident": incident, "answered": asked, "state": record.state})
        elif asked:
            plan = f": {_plan(record.plan)}" if record.plan else ""
            echo(f"{incident}: {verb} is written on {record.workload}; the service acts on it{plan}.")
        else:
            echo(f"{incident}: nobody is asked, it is {record.outcome or record.state}. Nothing was changed.")
        return GOOD if asked else NOT_DONE

    command.help = f"{summary}\n\nThe answer is an annotation on the Deployment, so it needs the right to patch it."
    return command


approve = _answers("approve", "Let the service do what it asked for.")
dismiss = _answers("dismiss", "Tell the service to leave the workload as it is.")


def _known(record: Record | None, incident: str) -> Record:
    if record is None:
        raise UsageError(f"there is no record {incident!r}; see: rollback-watchdog incidents")
    return record


def _all_fields(record: Record) -> dict[str, object]:
    """The fields by their names in the store, empty ones too."""
    fields = msgspec.structs.fields(record)
    return {field.encode_name: msgspec.to_builtins(getattr(record, field.name)) for field in fields}


def _row(record: Record) -> dict[str, object]:
    return {
        "id": record.id,
        "workload": str(record.workload),
        "state": record.state,
        "outcome": record.outcome,
        "cause": record.plan.cause
        if record.plan
        else next((seen.cause for seen in record.verdicts[::-1] if seen.cause), ""),
        "started": _time(record.started),
    }


def _describe(record: Record) -> list[str]:
    """A record for a person: what it is about, then what happened, in the order of time."""
    rollout = record.rollout
    lines = [
        f"{record.id}: {record.outcome or record.state}{f', {record.detail}' if record.detail else ''}",
        f"  workload  {record.workload}, revision {rollout.revision} ({rollout.hash})",
        f"  policy    {record.policy}: {record.topology}, {record.mode}, {record.action}",
        *(f"  image     {container}: {image}" for container, image in record.images.items()),
        *(f"  signal    {signal.name}: {signal.bad} of {signal.total}" for signal in record.signals),
    ]
    if record.stable_hash:
        lines.append(f"  stable    {record.stable or record.workload} ({record.stable_hash})")
    if record.incident_first:
        lines.append(f"  before    already failing: {record.incident_first}")
    if record.plan:
        lines.append(f"  plan      {_plan(record.plan)}")
    if record.verified:
        lines.append(f"  verified  {record.verified}")
    happened = [
        (record.started, "rollout began"),
        (record.completed, "rollout complete"),
        *(
            (seen.at, f"{' '.join(filter(None, (seen.signal, seen.status)))}: {seen.detail}")
            for seen in record.verdicts
        ),
        *(
            (objection.at, f"{objection}{' (asks instead of acting)' if objection.asks else ''}")
            for objection in record.objections
        ),
        *((alert.starts_at, f"alert {alert.name}: {alert.what}") for alert in record.alerts),
        (record.asked, "a person is asked"),
        *((said.at, f"{said.answer} by {said.by} ({said.via})") for said in record.people),
        *((write.at, f"wrote: {write.what}") for write in record.writes),
        (record.ended, f"ended: {record.outcome}"),
    ]
    timed = sorted(((at, text) for at, text in happened if at), key=lambda pair: pair[0])
    return [*lines, *(f"  {_time(at)}  {text}" for at, text in timed)]


def _plan(plan: Planned) -> str:
    numbers = plan.numbers
    counts = (
        f"; {numbers.candidate_bad:g} of {numbers.candidate_total:g} failed,"
        f" stable {numbers.stable_bad:g} of {numbers.stable_total:g}"
        if numbers
        else ""
    )
    to = f" → {plan.to_revision}" if plan.to_hash else ""
    return f"{plan.action} {plan.from_revision}{to} because of {plan.cause}{counts}"


def _time(at: dt.datetime) -> str:
    return f"{at.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
