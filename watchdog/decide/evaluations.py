"""Which version a batch of evaluations is about, and on which side of which rollouts it counts."""

from collections.abc import Iterable

import msgspec

from watchdog.decide import templates
from watchdog.decide.record import BEFORE_ACTING, Record
from watchdog.decide.revisions import History
from watchdog.errors import UsageError
from watchdog.judge.blocks import Track
from watchdog.judge.evaluations import MOST, Evaluation
from watchdog.model import IncidentId
from watchdog.objects import TemplateHash, WorkloadRef


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as it was posted: of an image or of a pod-template hash, one of the two.

    Args:
        id: names the batch; the same one counts once.
        bad: those that failed.
        hash: of the version; empty where its image is given.
        image: of the version.
    """

    id: str
    total: int
    bad: int
    hash: str = ""
    image: str = ""


class BatchSide(msgspec.Struct, frozen=True):
    """On which side of a rollout a batch counts."""

    incident: IncidentId
    track: Track


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch.

    Args:
        hash: the version that it is about.
        counted: it counts now, and did not before.
        detail: in one sentence.
    """

    hash: TemplateHash
    counted: bool
    rollouts: tuple[BatchSide, ...] = ()
    detail: str


def sides(ref: WorkloadRef, records: Iterable[Record]) -> dict[TemplateHash, tuple[BatchSide, ...]]:
    """Give the versions of a workload that are compared now, each with the rollouts in which it is."""
    found: dict[TemplateHash, tuple[BatchSide, ...]] = {}
    for record in records:
        if record.state not in BEFORE_ACTING or record.evaluated_by is None:
            continue
        for hash_, workload, track in (
            (record.rollout.hash, record.workload, Track.CANDIDATE),
            (record.stable_hash, record.stable, Track.STABLE),
        ):
            if workload == ref and hash_:
                found[hash_] = (*found.get(hash_, ()), BatchSide(record.id, track))
    return found


def version(posted: Posted, ref: WorkloadRef, history: History, compared: Iterable[TemplateHash]) -> TemplateHash:
    """Give the version that a batch is about: one that is live, or that a rollout under watch is compared with.

    Raises:
        UsageError: there is none such, or an image does not tell which.
    """
    wanted = set(compared)
    there = [item for item in history.all if item is history.live or item.hash in wanted]
    if posted.hash:
        if any(item.hash == posted.hash for item in there):
            return TemplateHash(posted.hash)
        live = ", ".join(sorted(item.hash for item in there)) or "nothing"
        raise UsageError(f"hash {posted.hash} is not live in {ref}, but {live}: post its evaluations while it runs")
    images = {item.hash: set(templates.images(item.spec.template).values()) for item in there}
    hashes = sorted(hash_ for hash_, each in images.items() if posted.image in each)
    if len(hashes) == 1:
        return hashes[0]
    if hashes:
        raise UsageError(f"image {posted.image} is that of several live versions of {ref}: post hash, {_or(hashes)}")
    live = ", ".join(sorted(set().union(*images.values()))) or "nothing"
    raise UsageError(f"image {posted.image} is not live in {ref}, but {live}: write it as the pod template has it")


def count(record: Record, batch: Evaluation) -> Record | str:
    """Give the record with a batch, or why it does not count.

    Raises:
        UsageError: the record has no room for more.
    """
    if any((each.id, each.track) == (batch.id, batch.track) for each in record.evaluations):
        return f"{batch.id} was counted before"
    if len(record.evaluations) >= MOST:
        raise UsageError(f"{record.id} has {MOST} batches of evaluations already: post fewer and larger ones")
    return msgspec.structs.replace(record, evaluations=(*record.evaluations, batch))


def _or(hashes: Iterable[TemplateHash]) -> str:
    return " or ".join(hashes)
