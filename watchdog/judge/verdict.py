"""All that is thought of a rollout in one verdict."""

from collections.abc import Sequence

from watchdog.judge.blocks import Status, Verdict


def combine(
    conditions: Verdict | None, signals: Sequence[Verdict], *, condemned_image: str, alert_trusted: str, bake_over: bool
) -> Verdict:
    """Give the one verdict.

    A breach wins: of a condemned image, of a condition, of a signal, of a trusted alert, in this order; among signals
    one that the stable track does not share and nothing speaks against. Then any blindness. Healthy takes a bake that
    is over and every signal, at least one: a rollout without signals stays unjudged.

    Args:
        conditions: what Kubernetes says, where it says anything.
        signals: the verdicts of the signals.
        condemned_image: how this rollout brings an image back that was condemned; empty if it does not.
        alert_trusted: which alert suffices alone; empty if none does.
        bake_over: whether it may be called healthy.
    """
    if condemned_image:
        return Verdict(Status.BREACH, condemned_image, cause="condemned-image")
    said = (*([conditions] if conditions else []), *signals)
    breaches = [each for each in said if each.status is Status.BREACH]
    breaches.sort(key=lambda each: (each.shared, bool(each.objections)))
    if breaches:
        return breaches[0]
    if alert_trusted:
        return Verdict(Status.BREACH, alert_trusted, cause="alert")
    blind = next((each for each in said if each.status is Status.BLIND), None)
    if blind:
        return blind
    if not signals:
        return Verdict(Status.INSUFFICIENT, "no signal to judge by")
    healthy = bake_over and all(each.status is Status.HEALTHY for each in signals)
    detail = "; ".join(f"{each.signal}: {each.detail}" for each in signals)
    first = signals[0]
    return Verdict(
        Status.HEALTHY if healthy else Status.INSUFFICIENT,
        detail,
        candidate=first.candidate,
        stable=first.stable,
        signal=first.signal if len(signals) == 1 else "",
    )
