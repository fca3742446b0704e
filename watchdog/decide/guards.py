"""The policy guards: each asks one question about a Deployment and refuses in doubt.

They bind the service; a person passes them with `--force` and a reason. The physical guards are in `history`, where
what they ask about is found out.
"""

import datetime as dt
from collections.abc import Iterable

from watchdog.decide import marks, templates
from watchdog.model import MANAGER, Guard, Mode, Objection
from watchdog.objects import Autoscaler, Deployment, ReplicaSet, Service, TemplateHash

_ARGO_TRACKING = "argocd.argoproj.io/tracking-id"
_ARGO_INSTANCE = "argocd.argoproj.io/instance"
_FLUX_KUSTOMIZE = "kustomize.toolkit.fluxcd.io"
_FLUX_HELM = "helm.toolkit.fluxcd.io"
_GITOPS_MANAGERS = {
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
}
_ANNOTATION_PATH = ("f:metadata", "f:annotations")
_POD_ANNOTATION_PATH = ("f:spec", "f:template", "f:metadata", "f:annotations")


def paused(deployment: Deployment, live: TemplateHash | None) -> Objection | None:
    """Somebody else's pause: what it protects is not known here."""
    if not deployment.spec.paused or paused_by_us(deployment, live):
        return None
    where = f"deployment/{deployment.metadata.name} -n {deployment.metadata.namespace}"
    return Objection(
        Guard.PAUSED,
        "spec.paused is true; to undo all the same:"
        f" kubectl rollout resume {where} && rollback-watchdog rollback {deployment.ref}",
    )


def paused_by_us(deployment: Deployment, live: TemplateHash | None) -> bool:
    """Whether the pause is our own, set on the version that is live, as far as a person need believe it.

    The mark alone does not tell: somebody may have resumed and paused again. Then they own the field, while ours is
    nobody's since we gave it up.
    """
    mark = marks.read_pause(deployment.metadata.annotations, live) if live else None
    owner = marks.field_owner(deployment.metadata, ("f:spec", "f:paused"))
    return deployment.spec.paused and mark is not None and (owner is None or owner.manager == MANAGER)


def recreate(deployment: Deployment) -> Objection | None:
    """An undo under this strategy takes every pod away before the first new one starts."""
    if deployment.spec.strategy.type != "Recreate":
        return None
    return Objection(Guard.RECREATE, "strategy Recreate: an undo means downtime until the old version is up")


def condemned(deployment: Deployment, target: ReplicaSet) -> Objection | None:
    """An incident found the target bad."""
    incident = marks.condemned_by(target)
    if not incident:
        return None
    return Objection(
        Guard.CONDEMNED,
        f"revision {target.revision} was found bad by incident {incident};"
        f" lift it with: rollback-watchdog history {deployment.ref} --absolve {target.revision}",
    )


def gitops(item: Deployment | Service) -> Objection | None:
    """A controller that follows Git would put the bad version back within its next sync."""
    metadata = item.metadata
    argo = metadata.annotations.get(_ARGO_TRACKING, "").partition(":")[0] or metadata.labels.get(_ARGO_INSTANCE)
    if argo:
        return _refuse_gitops(f"Argo CD (application {argo})", f"argocd app set {argo} --sync-policy none")
    for prefix, kind in ((_FLUX_KUSTOMIZE, "kustomization"), (_FLUX_HELM, "helmrelease")):
        name = metadata.labels.get(f"{prefix}/name")
        if name:
            namespace = metadata.labels.get(f"{prefix}/namespace", metadata.namespace)
            return _refuse_gitops(f"Flux ({kind} {name})", f"flux suspend {kind} {name} -n {namespace}")
    for entry in metadata.managed_fields:
        if owner := _GITOPS_MANAGERS.get(entry.manager):
            return _refuse_gitops(
                f"{owner} (field manager {entry.manager})", f"suspend its sync of this {type(item).__name__}"
            )
    return None


def _refuse_gitops(owner: str, stop: str) -> Objection:
    return Objection(
        Guard.GITOPS,
        f"managed by {owner}, which would put the bad version back; revert the commit in Git (git revert),"
        f" or stop the sync ({stop}) and undo with --force",
    )


def hold(deployment: Deployment, live: ReplicaSet, *, now: dt.datetime) -> Objection | None:
    """Somebody asked that nothing be undone, on the Deployment or inside this revision's pod template."""
    for annotations, path, else_set_at in (
        (deployment.metadata.annotations, _ANNOTATION_PATH, None),
        (templates.annotations(deployment.spec.template), _POD_ANNOTATION_PATH, live.metadata.creation_timestamp),
    ):
        if marks.HOLD not in annotations:
            continue
        owner = marks.field_owner(deployment.metadata, (*path, f"f:{marks.HOLD}"))
        set_at = owner.time if owner else else_set_at
        found = marks.read_hold(annotations[marks.HOLD], set_at=set_at, now=now)
        if found:
            return Objection(Guard.HOLD, f"held until {found.until:%Y-%m-%dT%H:%M:%SZ}: {found.reason or 'no reason'}")
    return None


def mode(deployment: Deployment) -> Objection | None:
    """Somebody wants nothing but observing here, since a moment ago perhaps."""
    if marks.read_mode(deployment.metadata.annotations) is not Mode.OBSERVE:
        return None
    return Objection(Guard.MODE, f"the annotation {marks.MODE} says observe: nothing is ever written")


def keda(deployment: Deployment, autoscalers: Iterable[Autoscaler]) -> Objection | None:
    """KEDA would scale the workload up again from zero, and fight for it."""
    for autoscaler in autoscalers:
        target = autoscaler.spec.scale_target_ref
        if (target.kind, target.name) != ("Deployment", deployment.metadata.name):
            continue
        scaled_object = autoscaler.metadata.labels.get("scaledobject.keda.sh/name")
        if scaled_object:
            return Objection(
                Guard.KEDA,
                f"KEDA scales it (ScaledObject {scaled_object}) and would scale it up again: use the action undo",
            )
    return None
