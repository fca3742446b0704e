"""Alerts as Alertmanager writes them: the body of its webhook, version 4, and what its API has in common with that.

The reader is tolerant: releases add fields, and some have left fields out. What says which alert it is, and whether it
fires, must be there and be well-formed. The group's own status is not read: where alerts were truncated it may say
`resolved` while alerts fire.
"""

import datetime as dt
import re
from collections.abc import Mapping

import msgspec

from watchdog.decoding import Malformed, Moment, from_json, in_range
from watchdog.model import Alert

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


class Labelled(msgspec.Struct, frozen=True, rename="camel"):
    """What an alert of the webhook and one of the API have in common."""

    labels: dict[str, str]
    starts_at: Moment
    fingerprint: str | None = None
    generator_url: str | None = msgspec.field(name="generatorURL", default=None)

    def __post_init__(self) -> None:
        if not in_range(self.starts_at):
            raise ValueError("startsAt is out of range")

    def alert(self, *, firing: bool) -> Alert:
        """The same in our words.

        The webhook tells nanoseconds and the API cuts to milliseconds. Cut alike, one alert does not look like two.
        """
        told, starts_at = self.fingerprint or "", self.starts_at.astimezone(dt.UTC)
        return Alert(
            fingerprint=told if _FINGERPRINT.fullmatch(told) else fingerprint(self.labels),
            labels=self.labels,
            starts_at=starts_at.replace(microsecond=starts_at.microsecond // 1000 * 1000),
            firing=firing,
            generator_url=self.generator_url or "",
        )


class _Notified(Labelled, frozen=True, kw_only=True):
    status: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.status not in ("firing", "resolved"):  # an enum's error would repeat the foreign word
            raise ValueError("status is neither firing nor resolved")


class _Webhook(msgspec.Struct, frozen=True):
    alerts: tuple[_Notified, ...]


def read_webhook(body: bytes) -> tuple[Alert, ...]:
    """Read the body of a webhook.

    Raises:
        ValueError: it is not one; names the field, without a word of the body.
    """
    try:
        webhook = from_json(body, _Webhook)
    except Malformed as error:
        raise ValueError(f"not Alertmanager's own webhook body (has it a custom `payload:`?): {error}") from None
    return tuple(item.alert(firing=item.status == "firing") for item in webhook.alerts)


def fingerprint(labels: Mapping[str, str]) -> str:
    """Alertmanager's own: FNV-1a, 64 bits, over the sorted labels (prometheus/common, model/signature.go)."""
    digest = 0xCBF29CE484222325
    for name, value in sorted(labels.items()):
        for byte in b"%b\xff%b\xff" % (name.encode(), value.encode()):
            digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"
