"""The annotations under ``rollback-watchdog.io/``, written and read.

Every mark names the hash it is about and counts only there, because `kubectl rollout undo` and the controller
copy annotations between a Deployment and its ReplicaSets (TESTBED d4).
"""

import datetime as dt
from collections.abc import Mapping
from typing import Literal

import msgspec

from watchdog.model import IncidentId
from watchdog.objects import ManagedFields, Metadata, ReplicaSet, TemplateHash

PREFIX = "rollback-watchdog.io"
LAST_ROLLBACK = f"{PREFIX}/last-rollback"
REPLICAS_BEFORE = f"{PREFIX}/replicas-before"
PAUSED_BY = f"{PREFIX}/paused-by"
CONDEMNED = f"{PREFIX}/condemned"
PASSED = f"{PREFIX}/passed"
HOLD = f"{PREFIX}/hold"
ANSWER = f"{PREFIX}/answer"

Verb = Literal["approve", "dismiss"]
"""What a person can say when asked."""

LONGEST_HOLD = dt.timedelta(days=7)
_LONGEST_MARK_BYTES = 1024
_LONGEST_REASON = 200


class LastRollback(msgspec.Struct, frozen=True):
    """The write-ahead record: it is part of the very patch that acts.

    Args:
        incident: whose action it was.
        from_hash: what was live.
        to_hash: what the action made live; the same hash where it changed no template.
        from_revision: the revision number that was live.
        to_revision: the target's number before the undo, which renumbers it.
        by: who asked.
        cause: why.
        at: when the action was decided.
    """

    incident: IncidentId
    from_hash: TemplateHash
    to_hash: TemplateHash
    from_revision: int
    to_revision: int
    by: str
    cause: str
    at: dt.datetime


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


def read_last_rollback(annotations: Mapping[str, str]) -> LastRollback | None:
    """The mark, or None where there is none that can be read."""
    try:
        return msgspec.json.decode(annotations.get(LAST_ROLLBACK, ""), type=LastRollback)
    except msgspec.MsgspecError:
        return None


def acted(annotations: Mapping[str, str]) -> IncidentId | None:
    """Whose action was the last one on a Deployment: an undo, a scale-down, or a pause that still lasts."""
    paused_by = annotations.get(PAUSED_BY, "").partition(":")[2]
    mark = read_last_rollback(annotations)
    return IncidentId(paused_by) if paused_by else mark.incident if mark else None


def write_about(about: TemplateHash, value: str) -> str:
    """A mark's text, ``<pod-template-hash>:<value>``."""
    return f"{about}:{value}"


def read_about(annotations: Mapping[str, str], key: str, about: TemplateHash) -> str | None:
    """The value of a mark; None where it is absent or about another hash."""
    named, colon, value = annotations.get(key, "").partition(":")
    return value if colon and about and named == about else None


def condemned_by(replicaset: ReplicaSet) -> IncidentId | None:
    """The incident that condemned this ReplicaSet."""
    value = read_about(replicaset.metadata.annotations, CONDEMNED, replicaset.hash)
    return IncidentId(value) if value else None


def passed_at(replicaset: ReplicaSet) -> str | None:
    """When this ReplicaSet lived through its bake, as RFC3339."""
    return read_about(replicaset.metadata.annotations, PASSED, replicaset.hash)


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
    latest = (set_at or now) + LONGEST_HOLD
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
        metadata: the Deployment's.
        path: the field's path as managedFields spell it, such as ``("f:metadata", "f:annotations", "f:KEY")``.
    """
    for entry in metadata.managed_fields:
        node = msgspec.json.decode(entry.fields_v1)
        for step in path:
            node = node.get(step, {}) if isinstance(node, dict) and step in node else None
            if node is None:
                break
        if node is not None:
            return entry
    return None
