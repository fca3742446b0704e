"""``check``: is the configuration good, and with ``--online`` may we do what it needs, and what do we see."""

import click
import msgspec

from watchdog.alertmanager import Alertmanagers
from watchdog.app import Parts, assemble, records_namespace
from watchdog.cli.options import Common, common, runs
from watchdog.cli.output import GOOD, USAGE, Cell, Form, echo, print_json, print_table
from watchdog.cli.policy_preview import PolicyPreview, look
from watchdog.config import Config
from watchdog.errors import NotificationError, UsageError
from watchdog.kube import Right


class Need(msgspec.Struct, frozen=True):
    """A right, and what is lost without it. Without a required one nothing can be undone."""

    right: Right
    lost: str
    required: bool = True


def needs(namespace: str) -> tuple[Need, ...]:
    """The rights in a namespace whose workloads are to be undone."""

    def right(verb: str, resource: str, group: str) -> Right:
        return Right(verb=verb, resource=resource, group=group, namespace=namespace)

    return (
        Need(right("get", "deployments", "apps"), "no command works"),
        Need(right("patch", "deployments", "apps"), "no undo, scale-down, restore or pause"),
        Need(right("list", "replicasets", "apps"), "no history, and so no undo"),
        Need(right("list", "deployments", "apps"), "an undo is not verified"),
        Need(right("watch", "deployments", "apps"), "an undo is not verified"),
        Need(right("patch", "replicasets", "apps"), "no condemned marks, no --absolve", required=False),
        Need(right("list", "pods", ""), "a failed undo does not say why its pods do not run", required=False),
        Need(
            right("list", "horizontalpodautoscalers", "autoscaling"),
            "no scale-down, since KEDA would go unseen",
            required=False,
        ),
        *(
            Need(right(verb, "services", ""), "no blue-green policy works", required=False)
            for verb in ("get", "list", "watch", "patch")
        ),
        Need(right("create", "events", "events.k8s.io"), "no Events on the Deployment", required=False),
    )


def own_needs(config: Config) -> tuple[Need, ...]:
    """The rights of the service itself: where its records are, and to know who calls it."""
    namespace, kind = records_namespace(config), f"{config.records.kind}s"

    def keep(verb: str) -> Need:
        return Need(Right(verb, kind, namespace=namespace), "no records: a restart forgets", required=False)

    def ask(resource: str, group: str) -> Need:
        return Need(Right("create", resource, group), "only callers with a static token", required=False)

    return (
        *map(keep, ("get", "list", "create", "patch", "delete")),
        ask("tokenreviews", "authentication.k8s.io"),
        ask("subjectaccessreviews", "authorization.k8s.io"),
    )


@click.command(short_help="Validate the configuration.")
@click.option("--online", is_flag=True, help="Ask also the cluster and all other servers.")
@click.option("-n", "--namespace", "named", multiple=True, metavar="NAME", help="With --online: also this namespace.")
@common
@runs
async def check(shared: Common, *, online: bool, named: tuple[str, ...]) -> int:
    """Validate the configuration; with --online also the rights, and what every policy sees.

    Rights are asked for in the namespaces of all policies and those named with -n. Only a missing right without which
    nothing can be undone makes this fail.
    """
    policies = shared.config.policies
    namespaces = sorted({*named, *(name for policy in policies for name in policy.namespaces)})
    answers: list[tuple[Need, bool]] = []
    sights: list[PolicyPreview] = []
    reached: list[str] = []
    problems: list[str] = []
    user = None
    if online:
        if not namespaces:
            raise UsageError("--online needs a policy with namespaces in the configuration, or -n NAMESPACE")
        async with assemble(shared.config, kubeconfig=shared.kubeconfig, context=shared.context) as parts:
            user = await parts.caller()
            asked = [need for namespace in namespaces for need in needs(namespace)]
            for need in (*asked, *own_needs(shared.config)):
                answers.append((need, await parts.reviews.may_i(need.right, timeout_s=parts.request_s)))
            sights, problems = await look(parts)
            reached = await _reach(parts, problems)
    missing = [need for need, allowed in answers if not allowed]
    good = not any(need.required for need in missing)
    if shared.form is Form.JSON:
        fields = {
            "config": shared.config_path,
            "policies": len(policies),
            "user": user,
            "good": good,
            "rights": [_fields(need, allowed) for need, allowed in answers],
            "sees": msgspec.to_builtins(sights),
            "reached": reached,
            "problems": problems,
        }
        print_json("check", fields)
        return GOOD if good else USAGE
    plural = "policy" if len(policies) == 1 else "policies"
    echo(f"{shared.config_path or 'No configuration file, defaults hold'}: good, {len(policies)} {plural}.")
    if online:
        _print(answers)
        lost = f"{len(missing)} of {len(answers)} rights are missing" if missing else "all rights are there"
        echo(f"{user}: {lost}.")
        for line in (*(line for sight in sights for line in sight.lines()), *reached):
            echo(line)
        for problem in problems:
            echo(f"PROBLEM: {problem}")
    return GOOD if good else USAGE


async def _reach(parts: Parts, problems: list[str]) -> list[str]:
    """Ask the other servers that are configured; what is wrong is added to `problems`."""
    reached = []
    if peers := parts.alertmanagers():
        view = await Alertmanagers(peers).alerts(timeout_s=parts.config.alertmanager.timeout)
        problems += [f"Alertmanager {peer} gave no usable answer: see the log" for peer in view.unreachable]
        young = "" if view.trustworthy else "; not all of them, and for 5 minutes, so absent alerts prove nothing yet"
        reached.append(f"Alertmanager: {len(peers) - len(view.unreachable)} of {len(peers)} peers answer{young}")
    for channel, client in parts.channels().items():
        try:
            reached.append(f"{channel.capitalize()}: {await client.check()}")
        except NotificationError as error:
            problems.append(str(error))
    return reached


def _fields(need: Need, allowed: bool) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(need.right)
    return {**fields, "allowed": allowed, "required": need.required, "lost_without": need.lost}


def _print(answers: list[tuple[Need, bool]]) -> None:
    rows: list[list[Cell]] = []
    for need, allowed in answers:
        answer = ("yes", "green") if allowed else ("NO", "bold red")
        rows.append([need.right.namespace, str(need.right), answer, "" if allowed else need.lost])
    print_table(("NAMESPACE", "RIGHT", "", "WITHOUT IT"), rows)
