"""The annotations of this project: what they say, and about what."""

import datetime as dt
import json
import re
import time
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.builders import NOW, Json, decoded, hash_of, managed, replicaset
from watchdog.decide import marks
from watchdog.decide.marks import LastRollback
from watchdog.model import IncidentId
from watchdog.objects import Metadata, ReplicaSet, TemplateHash

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
HOLD_PATH = ("f:metadata", "f:annotations", f"f:{marks.HOLD}")


def revision(version: str, **annotations: str) -> ReplicaSet:
    document = replicaset(version, 2)
    document["metadata"]["annotations"] |= {f"{marks.PREFIX}/{key}": value for key, value in annotations.items()}
    return decoded(document, ReplicaSet)


def last_rollback(*, cause: str = "checkout fails", by: str = "jane") -> LastRollback:
    return LastRollback(
        incident=IncidentId("a" * 40 + "-2147483647-0badf00d"),
        from_hash=hash_of("v2"),
        to_hash=hash_of("v1"),
        from_revision=2**31 - 1,
        to_revision=2**31 - 2,
        by=by,
        cause=cause,
        at=NOW,
    )


# -- marks about a hash ------------------------------------------------------------------------------------------------


def test_a_mark_is_read_where_it_is_about_the_hash_in_question() -> None:
    text = marks.write_about(hash_of("v1"), "until 12:00:30")
    assert marks.read_about({"key": text}, "key", hash_of("v1")) == "until 12:00:30"


@pytest.mark.parametrize("text", ["", ":value", "value", f"{hash_of('v2')}:value", f"{hash_of('v1')}"])
def test_a_mark_about_another_hash_or_none_counts_nowhere(text: str) -> None:
    assert marks.read_about({"key": text}, "key", hash_of("v1")) is None
    assert marks.read_about({"key": text}, "key", TemplateHash("")) is None


def test_a_replicaset_is_condemned_by_a_mark_about_itself() -> None:
    assert marks.condemned_by(revision("v1", condemned=f"{hash_of('v1')}:web-2-0badf00d")) == "web-2-0badf00d"


def test_a_condemnation_that_travelled_from_another_replicaset_condemns_nothing() -> None:
    assert marks.condemned_by(revision("v3", condemned=f"{hash_of('v1')}:web-2-0badf00d")) is None


def test_a_replicaset_without_a_hash_of_its_own_is_condemned_by_nothing() -> None:
    document = replicaset("v1", 2)
    document["metadata"]["labels"] = {}
    document["metadata"]["annotations"][marks.CONDEMNED] = ":web-2-0badf00d"
    assert marks.condemned_by(decoded(document, ReplicaSet)) is None


def test_a_passed_mark_keeps_the_colons_of_its_time_and_counts_only_at_home() -> None:
    text = f"{hash_of('v1')}:2026-03-01T12:00:00Z"
    assert marks.passed_at(revision("v1", passed=text)) == dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
    assert marks.passed_at(revision("v2", passed=text)) is None


# -- last-rollback -----------------------------------------------------------------------------------------------------


@given(cause=st.text(max_size=3000), by=st.text(max_size=300))
@example(cause="\x00" * 3000, by="\x00" * 1200)
@example(cause='"\\' * 2000, by="")
@example(cause="", by="😀" * 600)
def test_no_cause_makes_the_last_rollback_longer_than_a_kibibyte(cause: str, by: str) -> None:
    mark = last_rollback(cause=cause, by=by)
    text = marks.write_last_rollback(mark)
    assert len(text.encode()) <= 1024
    read = marks.read_last_rollback({marks.LAST_ROLLBACK: text}, now=NOW)
    assert read is not None
    assert cause.startswith(read.cause)
    assert by.startswith(read.by)
    assert msgspec.structs.replace(read, cause=cause, by=by) == mark


def test_a_cause_that_fits_is_kept_whole() -> None:
    mark = last_rollback(cause="é" * 300)
    assert marks.read_last_rollback({marks.LAST_ROLLBACK: marks.write_last_rollback(mark)}, now=NOW) == mark


def test_a_long_cause_is_cut_no_further_than_needed() -> None:
    assert len(marks.write_last_rollback(last_rollback(cause="x" * 3000))) > 1000


@pytest.mark.parametrize("text", ["", "null", "{}", '{"incident": 1}', "nonsense"])
def test_a_last_rollback_that_cannot_be_read_is_none(text: str) -> None:
    assert marks.read_last_rollback({marks.LAST_ROLLBACK: text}, now=NOW) is None


# -- holds -------------------------------------------------------------------------------------------------------------


def test_a_hold_binds_until_it_ends() -> None:
    text = "until=2026-03-01T12:00:01Z;migration"
    held = marks.read_hold(text, set_at=NOW - HOUR, now=NOW)
    assert held == marks.Hold(NOW + dt.timedelta(seconds=1), "migration")
    assert marks.read_hold(text, set_at=NOW - HOUR, now=NOW + dt.timedelta(seconds=1)) is None


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the machine be somewhere else."""
    with monkeypatch.context() as here:
        here.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_a_hold_without_a_zone_is_in_utc_wherever_the_machine_is() -> None:
    held = marks.read_hold("until=2026-03-01T13:00:00;migration", set_at=NOW, now=NOW)
    assert held == marks.Hold(NOW + HOUR, "migration")


def test_a_hold_in_another_zone_ends_at_the_moment_it_names() -> None:
    held = marks.read_hold("until=2026-03-01T15:00:00+02:00;migration", set_at=NOW, now=NOW)
    assert held is not None
    assert held.until == NOW + HOUR


def test_no_hold_lasts_longer_than_seven_days_from_when_it_was_set() -> None:
    text = "until=2027-01-01T00:00:00Z;do not touch"
    held = marks.read_hold(text, set_at=NOW - 6 * DAY, now=NOW)
    assert held == marks.Hold(NOW + DAY, "do not touch (a hold lasts 7 days at most)")
    assert marks.read_hold(text, set_at=NOW - 7 * DAY, now=NOW) is None


def test_a_hold_of_unknown_age_counts_as_new() -> None:
    held = marks.read_hold("until=2027-01-01T00:00:00Z;do not touch", set_at=None, now=NOW)
    assert held is not None
    assert held.until == NOW + 7 * DAY


@pytest.mark.parametrize("text", ["", "yes", "until=tomorrow;migration", "until=;migration", "2026-13-01T00:00:00Z"])
def test_a_hold_that_cannot_be_read_binds_for_seven_days(text: str) -> None:
    held = marks.read_hold(text, set_at=NOW - 6 * DAY, now=NOW)
    assert held is not None
    assert held.until == NOW + DAY
    assert "until=<RFC3339>;reason" in held.reason
    assert marks.read_hold(text, set_at=NOW - 7 * DAY, now=NOW) is None


@given(text=st.text(max_size=60), age_hours=st.integers(0, 200))
@example(text="until=0001-01-01T00:00:00+14:00", age_hours=0)
@example(text="until=9999-12-31T23:59:59-14:00", age_hours=0)
def test_whatever_a_hold_says_it_ends_within_seven_days(text: str, age_hours: int) -> None:
    held = marks.read_hold(text, set_at=NOW - age_hours * HOUR, now=NOW)
    assert held is None or NOW < held.until <= NOW + 7 * DAY - age_hours * HOUR


# -- when an annotation was set ----------------------------------------------------------------------------------------


def metadata(*entries: Json) -> Metadata:
    return decoded({"managedFields": list(entries)}, Metadata)


def owning(key: str) -> Json:
    return {"f:metadata": {"f:annotations": {".": {}, f"f:{key}": {}}}}


def test_an_annotation_was_set_when_its_owner_last_wrote() -> None:
    found = metadata(
        managed("argocd", time="2026-02-01T00:00:00Z"),
        managed("kubectl-annotate", fields=owning(marks.HOLD), time="2026-02-27T00:00:00Z"),
    )
    owner = marks.field_owner(found, HOLD_PATH)
    assert owner is not None
    assert owner.time == dt.datetime(2026, 2, 27, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "fields", [owning("another"), {}, {"f:metadata": "a text"}, {"f:spec": {"f:annotations": {f"f:{marks.HOLD}": {}}}}]
)
def test_an_annotation_that_nobody_owns_was_set_at_an_unknown_time(fields: Json) -> None:
    assert marks.field_owner(metadata({**managed("kubectl"), "fieldsV1": fields}), HOLD_PATH) is None


# -- hostile ones ------------------------------------------------------------------------------------------------------

INCIDENT = IncidentId("web-2-0badf00d")
NAME, HASH = re.compile(r"[a-z0-9]([-a-z0-9.]{0,230}[a-z0-9])?"), re.compile(r"[a-z0-9]{1,63}")
HOSTILE_TEXTS = (
    "/../victim-config",
    "web-2-0badf00d?force=true",
    "%2e%2e",
    "WEB-2-0BADF00D",
    "web-2-0badf00d\n",
    "x" * 300,
    "\x00",
    "\u202e",
    "2026-12-01T00:00:00",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "9999-12-31T23:59:59Z",
    "2026-02-30T00:00:00Z",
    "[" * 20_000,
    '{"a":' * 20_000,
    "9" * 5_000,
    '{"incident": "\\ud800"}',
    "1e999",
    "NaN",
)
VALUES: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**63, 2**64, 10**400, -1, 0]),
    st.floats(),
    st.text(max_size=80),
    st.sampled_from(HOSTILE_TEXTS),
    st.datetimes().map(dt.datetime.isoformat),
    st.datetimes(timezones=st.timezones()).map(dt.datetime.isoformat),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@st.composite
def forged(draw: st.DrawFn) -> str:
    """A mark with some of its values changed or left out."""
    mark: Json = json.loads(marks.write_last_rollback(last_rollback()))
    for key in draw(st.sets(st.sampled_from(sorted(mark)))):
        mark[key] = draw(VALUES)
    for key in draw(st.sets(st.sampled_from(sorted(mark)), max_size=1)):
        del mark[key]
    return json.dumps(mark, ensure_ascii=draw(st.booleans()))


TEXTS = st.one_of(st.text(max_size=200), st.sampled_from(HOSTILE_TEXTS), forged())


def check_legal_time(time: dt.datetime) -> None:
    """One that can be counted from in any direction, and is not to come."""
    assert time.utcoffset() is not None
    assert time <= dt.datetime.now(dt.UTC) + DAY
    assert time.astimezone(dt.UTC) - 30 * DAY < NOW + 10_000 * DAY


@given(text=TEXTS)
def test_a_last_rollback_is_legal_in_all_that_it_says_or_is_none(text: str) -> None:
    mark = marks.read_last_rollback({marks.LAST_ROLLBACK: text}, now=NOW)
    if mark is None:
        return
    assert NAME.fullmatch(mark.incident)
    assert all(HASH.fullmatch(each) for each in (mark.from_hash, mark.to_hash) if each)
    assert 0 < mark.from_revision < 2**63
    assert 0 <= mark.to_revision < 2**63  # 0: a target without a number
    check_legal_time(mark.at)
    assert marks.read_last_rollback({marks.LAST_ROLLBACK: marks.write_last_rollback(mark)}, now=NOW) is not None


@pytest.mark.parametrize("incident", ["", *(text for text in HOSTILE_TEXTS if not NAME.fullmatch(text))])
def test_an_incident_that_is_no_name_makes_a_mark_none(incident: str) -> None:
    mark: Json = json.loads(marks.write_last_rollback(last_rollback()))
    text = json.dumps(mark | {"incident": incident})
    assert marks.read_last_rollback({marks.LAST_ROLLBACK: text}, now=NOW) is None


@pytest.mark.parametrize(
    "at", ["2026-02-27T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59Z"]
)
def test_a_time_without_a_zone_or_far_from_now_makes_a_mark_none(at: str) -> None:
    mark: Json = json.loads(marks.write_last_rollback(last_rollback()))
    assert marks.read_last_rollback({marks.LAST_ROLLBACK: json.dumps(mark | {"at": at})}, now=NOW) is None


@given(text=TEXTS)
def test_a_replicaset_is_condemned_by_a_legal_incident_or_by_none(text: str) -> None:
    for value in (text, f"{hash_of('v1')}:{text}"):
        incident = marks.condemned_by(revision("v1", condemned=value))
        assert incident is None or NAME.fullmatch(incident)


@given(text=TEXTS)
def test_a_replicaset_passed_at_a_legal_time_or_never(text: str) -> None:
    for value in (text, f"{hash_of('v1')}:{text}"):
        at = marks.passed_at(revision("v1", passed=value))
        if at is not None:
            check_legal_time(at)


@given(text=TEXTS)
@example(text=f"{INCIDENT}=approve ")
@example(text=f"{INCIDENT}=APPROVE")
def test_whatever_an_annotation_holds_it_is_read_without_a_fault(text: str) -> None:
    annotations = {f"{marks.PREFIX}/{key}": text for key in ("last-rollback", "paused-by", "answer", "replicas-before")}
    assert marks.read_answer(annotations, INCIDENT) is None
    value = marks.read_about({"key": text}, "key", hash_of("v1"))
    assert (
        value is None
        or marks.read_about({"key": marks.write_about(hash_of("v1"), value)}, "key", hash_of("v1")) == value
    )
    held = marks.read_hold(text, set_at=NOW, now=NOW)
    assert held is None or NOW < held.until <= NOW + 7 * DAY
