"""The webhook's body: every release's shape is read, nothing else is, and no body breaks the reader."""

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from watchdog.alertmanager.payload import fingerprint, read_webhook

Json = dict[str, Any]

LABELS = {"alertname": "AgentErrors", "deployment": "web", "namespace": "shop", "rollback_watchdog": "true"}
FINGERPRINT = "4b328d8475880854"  # what Alertmanager 0.25 gives for these labels
STARTED = dt.datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=dt.UTC)
FOREIGN = "<!channel> hunter2"


def item(**changes: Any) -> Json:
    """One alert as the webhook writes it; None leaves a field out."""
    told = {
        "status": "firing",
        "labels": LABELS,
        "annotations": {"summary": "8 % errors"},
        "startsAt": "2026-03-01T12:00:00.123Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph?g0.expr=x",
        "fingerprint": FINGERPRINT,
        **changes,
    }
    return {name: value for name, value in told.items() if value is not None}


def body(*alerts: Json, **changes: Any) -> bytes:
    """The body as 0.25 writes it."""
    told = {
        "receiver": "rollback-watchdog",
        "status": "firing",
        "alerts": list(alerts),
        "groupLabels": {"alertname": "AgentErrors"},
        "commonLabels": LABELS,
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "version": "4",
        "groupKey": '{}/{rollback_watchdog="true"}:{alertname="AgentErrors"}',
        "truncatedAlerts": 0,
        **changes,
    }
    return json.dumps({name: value for name, value in told.items() if value is not None}).encode()


RELEASES = {
    "0.18": body(item(fingerprint=None), truncatedAlerts=None),
    "0.19": body(item(), truncatedAlerts=None),
    "0.25": body(item()),
    "0.32": body(item(), notification_reason="first notification"),
    "0.34": body(item(), notification_reason="repeat interval elapsed", routeLabels={"team": "shop"}),
    "a later one": body(item(silenceURL=["x", {"y": 1}], value=1e300), severity={"level": 3}),
    "a quoted receiver": body(item(), receiver="ns/config/dotted\\.recv\\+x"),
    "null for what may be missing": body(
        item(fingerprint=None, generatorURL=None, annotations=None) | {"endsAt": None}
    ),
}


@pytest.mark.parametrize("release", RELEASES)
def test_the_body_of_every_release_gives_the_same_alert(release: str) -> None:
    (alert,) = read_webhook(RELEASES[release])
    assert (alert.fingerprint, alert.labels, alert.starts_at, alert.firing) == (FINGERPRINT, LABELS, STARTED, True)
    assert alert.name == "AgentErrors"


def test_only_an_alerts_own_status_says_whether_it_fires() -> None:
    truncated = body(item(), item(status="resolved"), status="resolved", truncatedAlerts=2)
    assert [alert.firing for alert in read_webhook(truncated)] == [True, False]


@pytest.mark.parametrize(
    ("text", "started"),
    [
        ("2026-03-01T12:00:00.123456789Z", STARTED),
        ("2026-03-01T12:00:00.123Z", STARTED),
        ("2026-03-01T14:00:00.123456789+02:00", STARTED),
        ("2026-03-01T12:00:00Z", STARTED.replace(microsecond=0)),
    ],
)
def test_the_start_is_cut_to_milliseconds_as_the_api_tells_it(text: str, started: dt.datetime) -> None:
    (alert,) = read_webhook(body(item(startsAt=text)))
    assert (alert.starts_at, alert.starts_at.tzinfo) == (started, dt.UTC)


@pytest.mark.parametrize("told", ["", "x", FINGERPRINT.upper(), FINGERPRINT + "\n", "../../etc/passwd"])
def test_a_fingerprint_that_is_none_is_made_from_the_labels(told: str) -> None:
    (alert,) = read_webhook(body(item(fingerprint=told)))
    assert alert.fingerprint == fingerprint(dict(reversed(LABELS.items()))) == FINGERPRINT


def test_an_alert_made_by_hand_may_lack_a_name() -> None:
    (alert,) = read_webhook(body(item(labels={"a": "b"})))
    assert alert.name == ""


def test_a_body_may_hold_no_alert() -> None:
    assert read_webhook(body()) == ()


DEEP = b'{"x":' * 10_000
MALFORMED = {
    "alerts": (body() + b"}", "malformed"),
    "no JSON": (b"alert: yes", "malformed"),
    "nothing": (b"", "truncated"),
    "another shape": (b"[]", "`object`, got `array`"),
    "a custom payload": (json.dumps({"text": FOREIGN}).encode(), "`alerts`"),
    "alerts null": (body(alerts=None), "`alerts`"),
    "alerts an object": (body(alerts={"a": FOREIGN}), r"\$.alerts"),
    "an alert that is a text": (body(alerts=[FOREIGN]), r"\$.alerts\[0\]"),
    "no status": (body(item(status=None)), "`status`"),
    "another status": (body(item(status=FOREIGN)), "status is neither firing nor resolved"),
    "no labels": (body(item(labels=None)), "`labels`"),
    "a label that is a number": (body(item(labels={"a": 1})), r"\$.alerts\[0\].labels"),
    "no start": (body(item(startsAt=None)), "`startsAt`"),
    "a start without a zone": (body(item(startsAt="2026-03-01T12:00:00")), "timezone.*startsAt"),
    "a start that is a number": (body(item(startsAt=5)), "startsAt"),
    "a start in year 1": (body(item(startsAt="0001-01-01T00:00:00+23:59")), "startsAt is out of range"),
    "a start in year 9999": (body(item(startsAt="9999-12-31T23:59:59-23:59")), "startsAt is out of range"),
    "a fingerprint that is a list": (body(item(fingerprint=[FOREIGN])), "fingerprint"),
    "no UTF-8": (body(item()).replace(b"AgentErrors", b"\xff\xfe"), "not UTF-8"),
    "a lone surrogate": (body(item(labels={"a": "\ud800"})), "malformed|truncated|surrogate"),
    "too deep": (b'{"alerts":[' + DEEP, "too deeply"),
    "too deep where nobody looks": (b'{"alerts":[],"x":' + DEEP + b"0" + b"}" * 10_001, "too deeply"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_body_is_refused_with_the_field_and_without_its_words(case: str) -> None:
    raw, reason = MALFORMED[case]
    with pytest.raises(ValueError, match=reason) as refused:
        read_webhook(raw)
    assert "hunter2" not in str(refused.value)
    assert len(str(refused.value)) < 200


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["firing", "resolved"]) | JUNK,
        "labels": st.dictionaries(st.text(), st.text(), max_size=3) | JUNK,
        "startsAt": st.datetimes(timezones=st.timezones()).map(dt.datetime.isoformat) | JUNK,
        "fingerprint": JUNK,
        "generatorURL": JUNK,
    },
)


@given(st.binary() | (JUNK | st.fixed_dictionaries({"alerts": st.lists(NEARLY, max_size=3)})).map(json.dumps))
@example(b"\xef\xbb\xbf{}")
def test_whatever_comes_is_alerts_or_a_value_error(raw: bytes | str) -> None:
    try:
        alerts = read_webhook(raw if isinstance(raw, bytes) else raw.encode())
    except ValueError:
        return
    for alert in alerts:
        assert len(alert.fingerprint) == 16
        assert alert.starts_at.tzinfo is dt.UTC
