"""The annotations under ``rollback-watchdog.io/``, written and read.

A mark is a claim, never a proof: whoever may write a Deployment can write or copy any annotation. Only the nonce in our
own write, whose digest the record holds, proves that this service decided it. Everything else may only withhold.

Every mark names the hash it is about and counts only there, because `kubectl rollout undo` and the controller
copy annotations between a Deployment and its ReplicaSets (docs/design d4). What does not parse is no mark.
"""

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from watchdog.decoding import Malformed, any_json, from_json
from watchdog.model import MANAGER, Cause, IncidentId, Mode, Rollout
from watchdog.objects import ManagedFields, Metadata, ReplicaSet, TemplateHash, is_name

PREFIX = "rollback-watchdog.io"
LAST_ROLLBACK = f"{PREFIX}/last-rollback"
REPLICAS_BEFORE = f"{PREFIX}/replicas-before"
PAUSED_BY = f"{PREFIX}/paused-by"
CONDEMNED = f"{PREFIX}/condemned"
PASSED = f"{PREFIX}/passed"
HOLD = f"{PREFIX}/hold"
ANSWER = f"{PREFIX}/answer"
MODE = f"{PREFIX}/mode"

Verb = Literal["approve", "dismiss"]
"""What a person can say when asked."""

LONGEST_HOLD = dt.timedelta(days=7)
CLOCKS_DIFFER = dt.timedelta(minutes=1)
"""A time that is further in the future than this is no time."""

_LONGEST_MARK_BYTES = 1024
_LONGEST_REASON = 200
_LONGEST_INCIDENT = 80
_HASH = re.compile(r"[a-z0-9]{1,63}")
_NONCE = re.compile(r"([0-9a-f]{32})?")
_EARLIEST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_LARGEST = 2**63 - 1


class LastRollback(msgspec.Struct, frozen=True):
    """The write-ahead record: it is part of the very patch that acts.

    Args:
        incident: whose action it was.
        from_hash: what was live.
        to_hash: what the action made live; the same hash where it changed no template.
        from_revision: the revision number that was live.
        to_revision: the target's number before the undo, which renumbers it; 0 where it had none.
        cause: why.
        at: when the action was decided.
        nonce: what the service's own writes carry; empty in a person's.
    """

    incident: IncidentId
    from_hash: TemplateHash
    to_hash: TemplateHash
    from_revision: int
    to_revision: int
    by: str
    cause: str
    at: dt.datetime
    nonce: str = ""

    @property
    def by_us(self) -> bool:
        """Whether it names the service. Anybody could have written that."""
        return self.by == MANAGER


def is_incident(text: str) -> bool:
    """Whether a text can be the id of an incident, and so come into a path."""
    return len(text) <= _LONGEST_INCIDENT and is_name(text)


def last_rollback(rollout: Rollout, to: ReplicaSet, cause: Cause, *, nonce: str, now: dt.datetime) -> str:
    """The mark that goes into a write which leaves a rollout.

    Args:
        rollout: what is left.
        to: what becomes live; the same where only its replicas go.
        cause: who writes, and why.
        nonce: what proves the service's own write; empty for a person's.
    """
    return write_last_rollback(
        LastRollback(
            incident=rollout.incident,
            from_hash=rollout.hash,
            to_hash=to.hash,
            from_revision=rollout.revision,
            to_revision=to.revision or 0,
            by=cause.by,
            cause=cause.reason,
            at=now.replace(microsecond=0),
            nonce=nonce,
        )
    )


def write_last_rollback(mark: LastRollback) -> str:
    """Encode the mark in at most 1 KiB; the cause is cut where it would not fit."""
    encoded = msgspec.json.encode(mark)
    while len(encoded) > _LONGEST_MARK_BYTES:
        surplus = len(encoded) - _LONGEST_MARK_BYTES
        field = "cause" if mark.cause else "by"
        text = getattr(mark, field)
        # A character may take several bytes, so this comes to an end in more than one step, never in none.
        mark = msgspec.structs.replace(mark, **{field: text[: max(0, len(text) - max(1, surplus // 4))]})
        encoded = msgspec.json.encode(mark)
    return encoded.decode()


def read_last_rollback(annotations: Mapping[str, str], *, now: dt.datetime) -> LastRollback | None:
    """The mark, or None where there is none that can be read, or its time is in the future."""
    text = annotations.get(LAST_ROLLBACK, "")
    try:
        mark = from_json(text, LastRollback) if len(text.encode(errors="replace")) <= _LONGEST_MARK_BYTES else None
    except Malformed:
        return None
    return mark if mark and _legal(mark, now) else None


def _legal(mark: LastRollback, now: dt.datetime) -> bool:
    """Whether every part of a mark is what we could have written."""
    return (
        is_incident(mark.incident)
        and all(_HASH.fullmatch(each) for each in (mark.from_hash, mark.to_hash) if each)
        and _NONCE.fullmatch(mark.nonce) is not None
        and 1 <= mark.from_revision <= _LARGEST
        and 0 <= mark.to_revision <= _LARGEST
        and mark.at.tzinfo is not None
        and _EARLIEST.year <= mark.at.year < 9999
        and mark.at <= now + CLOCKS_DIFFER
    )


def malformed(annotations: Mapping[str, str], *, now: dt.datetime) -> tuple[str, ...]:
    """The keys whose values stand there and are no marks, for people who wonder."""
    found = {
        LAST_ROLLBACK: read_last_rollback(annotations, now=now),
        **{key: _about(annotations.get(key, "")) for key in (PAUSED_BY, REPLICAS_BEFORE)},
    }
    return tuple(key for key, mark in found.items() if key in annotations and mark is None)


# -- proof -------------------------------------------------------------------------------------------------------------


def digest(nonce: str, rollout: Rollout) -> str:
    """What the record holds of a nonce, bound to the rollout's UID and hash."""
    return hashlib.sha256(f"{nonce}/{rollout.uid}/{rollout.hash}".encode()).hexdigest()


def proves(nonce: str, rollout: Rollout, proofs: Iterable[str]) -> bool:
    """Whether a nonce that was found in a mark is one of those whose digests the record holds."""
    return bool(nonce) and digest(nonce, rollout) in tuple(proofs)


def write_pause(about: TemplateHash, incident: IncidentId, nonce: str) -> str:
    """The mark of a pause, ``<pod-template-hash>:<incident>:<nonce>``."""
    return write_about(about, f"{incident}:{nonce}" if nonce else incident)


def read_pause(annotations: Mapping[str, str], about: TemplateHash) -> tuple[IncidentId, str] | None:
    """Incident and nonce of the mark of a pause."""
    incident, _, nonce = (read_about(annotations, PAUSED_BY, about) or "").partition(":")
    return (IncidentId(incident), nonce) if is_incident(incident) and _NONCE.fullmatch(nonce) else None


# -- marks about a hash ------------------------------------------------------------------------------------------------


def write_about(about: TemplateHash, value: str) -> str:
    """A mark's text, ``<pod-template-hash>:<value>``."""
    return f"{about}:{value}"


def read_about(annotations: Mapping[str, str], key: str, about: TemplateHash) -> str | None:
    """The value of a mark; None where it is absent or about another hash."""
    found = _about(annotations.get(key, ""))
    return found[1] if found and about and found[0] == about else None


def _about(text: str) -> tuple[str, str] | None:
    named, colon, value = text.partition(":")
    fits = len(text) <= _LONGEST_MARK_BYTES and value.isascii() and value.isprintable()
    return (named, value) if colon and fits and _HASH.fullmatch(named) else None


def replicas_before(annotations: Mapping[str, str]) -> tuple[TemplateHash, int] | None:
    """The hash that was scaled down, and the replicas that it had."""
    about, count = _about(annotations.get(REPLICAS_BEFORE, "")) or ("", "")
    return (TemplateHash(about), int(count)) if count.isdigit() and len(count) < 10 else None


def condemned_by(replicaset: ReplicaSet) -> IncidentId | None:
    """The incident that condemned this ReplicaSet."""
    value = read_about(replicaset.metadata.annotations, CONDEMNED, replicaset.hash)
    return IncidentId(value) if value and is_incident(value) else None


def passed_at(replicaset: ReplicaSet) -> dt.datetime | None:
    """When this ReplicaSet lived through its bake."""
    value = read_about(replicaset.metadata.annotations, PASSED, replicaset.hash)
    return read_time(value) if value else None


def read_time(text: str) -> dt.datetime | None:
    """An RFC3339 time with a zone that arithmetic can bear; None for anything else."""
    try:
        at = dt.datetime.fromisoformat(text)
        return at.astimezone(dt.UTC) if at.tzinfo and _EARLIEST.year <= at.year < 9999 else None
    except (ValueError, OverflowError):
        return None


def read_mode(annotations: Mapping[str, str]) -> Mode | None:
    """How far people let the service go, at most; one that cannot be read is `observe`."""
    text = annotations.get(MODE)
    return None if text is None else Mode(text) if text in set(Mode) else Mode.OBSERVE


def write_answer(incident: IncidentId, verb: Verb) -> str:
    """A person's answer, ``<incident>=approve`` or ``<incident>=dismiss``."""
    return f"{incident}={verb}"


def read_answer(annotations: Mapping[str, str], incident: IncidentId) -> Verb | None:
    """What a person said to this incident; None where nothing was, or to another one."""
    verbs: tuple[Verb, ...] = ("approve", "dismiss")
    text = annotations.get(ANSWER, "")
    return next((verb for verb in verbs if text == write_answer(incident, verb)), None)


class Hold(msgspec.Struct, frozen=True):
    """Somebody's wish that nothing be undone.

    Args:
        until: when it ends; the earlier of what it says and seven days after it was set.
        reason: its text, or what is wrong with it.
    """

    until: dt.datetime
    reason: str


def read_hold(value: str, *, set_at: dt.datetime | None, now: dt.datetime) -> Hold | None:
    """The hold that binds at `now`, or None.

    A hold that cannot be read binds too: whoever wrote it wanted something left alone. It ends like every other.

    Args:
        value: ``until=<RFC3339>;reason``.
        set_at: when it was written, where that is known; else it counts as new.
        now: the moment of the decision, with a time zone.
    """
    latest = (min(set_at, now) if set_at and set_at.tzinfo and set_at.year >= _EARLIEST.year else now) + LONGEST_HOLD
    until_text, _, reason = value.partition(";")
    try:
        until = dt.datetime.fromisoformat(until_text.strip().removeprefix("until="))
        until = until.replace(tzinfo=dt.UTC) if until.tzinfo is None else until.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        until, reason = latest, f"{value[: _LONGEST_REASON // 2]!r} (write until=<RFC3339>;reason)"
    if until > latest:
        until, reason = latest, f"{reason[: _LONGEST_REASON // 2]} (a hold lasts 7 days at most)"
    return Hold(until, reason.strip()[:_LONGEST_REASON]) if until > now else None


def field_owner(metadata: Metadata, path: tuple[str, ...]) -> ManagedFields | None:
    """Who owns a field and when they last wrote, from managedFields; None where nobody does.

    Args:
        path: the field's path as managedFields spell it, such as ``("f:metadata", "f:annotations", "f:KEY")``.
    """
    for entry in metadata.managed_fields:
        try:
            node = any_json(entry.fields_v1)
        except Malformed:
            continue  # it owns nothing
        for step in path:
            node = node.get(step, {}) if isinstance(node, dict) and step in node else None
            if node is None:
                break
        if node is not None:
            return entry
    return None
