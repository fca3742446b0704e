"""``check``: is the configuration good, and with ``--online`` may we do what it needs."""

import click
import msgspec
from rich.text import Text

from watchdog.app import assemble
from watchdog.cli.options import Common, common, runs
from watchdog.cli.output import GOOD, USAGE, Form, echo, print_json, print_table
from watchdog.errors import UsageError
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
        Need(right("create", "events", "events.k8s.io"), "no Events on the Deployment", required=False),
    )


@click.command(short_help="Validate the configuration.")
@click.option("--online", is_flag=True, help="Ask the API server for the rights that are needed.")
@click.option("-n", "--namespace", "named", multiple=True, metavar="NAME", help="With --online: also this namespace.")
@common
@runs
async def check(shared: Common, *, online: bool, named: tuple[str, ...]) -> int:
    """Validate the configuration; with --online also the rights, and what is lost without each.

    Asked about are the namespaces of all policies and those named with -n.
    """
    policies = shared.config.policies
    namespaces = sorted({*named, *(name for policy in policies for name in policy.namespaces)})
    answers: list[tuple[Need, bool]] = []
    user = None
    if online:
        if not namespaces:
            raise UsageError("--online needs a policy with namespaces in the configuration, or -n NAMESPACE")
        async with assemble(shared.config, kubeconfig=shared.kubeconfig, context=shared.context) as parts:
            user = await parts.caller()
            for need in (need for namespace in namespaces for need in needs(namespace)):
                answers.append((need, await parts.reviews.may_i(need.right, timeout_s=parts.request_s)))
    missing = [need for need, allowed in answers if not allowed]
    good = not any(need.required for need in missing)
    if shared.form is Form.JSON:
        rights = [_fields(need, allowed) for need, allowed in answers]
        source = shared.config_path
        print_json("check", {"config": source, "policies": len(policies), "user": user, "good": good, "rights": rights})
        return GOOD if good else USAGE
    plural = "policy" if len(policies) == 1 else "policies"
    echo(f"{shared.config_path or 'No configuration file, defaults hold'}: good, {len(policies)} {plural}.")
    if online:
        _print(answers)
        lost = f"{len(missing)} of {len(answers)} rights are missing" if missing else "all rights are there"
        echo(f"{user}: {lost}.")
    return GOOD if good else USAGE


def _fields(need: Need, allowed: bool) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(need.right)
    return {**fields, "allowed": allowed, "required": need.required, "lost_without": need.lost}


def _print(answers: list[tuple[Need, bool]]) -> None:
    rows = [
        [
            Text(need.right.namespace),
            Text(str(need.right)),
            Text("yes", "green") if allowed else Text("NO", "bold red"),
            Text("" if allowed else need.lost),
        ]
        for need, allowed in answers
    ]
    print_table(("NAMESPACE", "RIGHT", "", "WITHOUT IT"), rows)
