"""What the tables of the file are made of."""

import re

import msgspec

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SHORTEST_S = 0.001
_LONGEST_S = 3650 * 86400.0
MOST = 2**31 - 1


class Seconds(float):
    """A duration; in the file a text such as ``30s``."""


class PauseDuration(float):
    """A duration that may be 0; in the file a text such as ``30s``."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


def duration(text: object, *, zero: bool = False) -> Seconds:
    """Read a duration such as ``30s``, ``1m30s`` or ``7d``; 0 only where `zero` says so.

    Raises:
        ValueError: with the cure.
    """
    if not isinstance(text, str) or not _DURATION.fullmatch(text.replace(" ", "")):
        raise ValueError(f'{text!r} is not a duration; write a number with ms, s, m, h or d, such as "30s" or "1m30s"')
    found = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text.replace(" ", "")))
    if found <= 0 and not zero:
        raise ValueError(f"{text!r} is no time at all; write more than 0")
    if not (found == 0 or _SHORTEST_S <= found <= _LONGEST_S):
        raise ValueError(f'{text[:40]!r} is out of range; write a time from "1ms" to "3650d"')
    return Seconds(found)
