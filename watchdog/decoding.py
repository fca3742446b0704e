"""The one way from foreign bytes to our structs: whatever bytes can raise becomes `Malformed`.

Every border decodes through this: answers of the API server, Prometheus, Alertmanager and Slack, records, annotations,
bodies of requests. An error's text names the field and never repeats the content.

What has been decoded can be reckoned with: no time of a `Moment` is without its zone or at the calendar's ends, where
time zones and differences overflow, and no `Whole` is larger than Go's.
"""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec

T = TypeVar("T")

Moment = Annotated[dt.datetime, msgspec.Meta(tz=True)]
"""A time with its zone; `in_range` says whether it is one to reckon with."""

Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A number that Go could read, too."""

DEEPEST = 100
LONGEST_PAUSE_S = 3600.0
_FIRST_YEAR, _LAST_YEAR = 1970, 9000
_CONTENT = re.compile(r"value '.*'", re.DOTALL)


class Malformed(ValueError):
    """Raised when bytes are not what was asked for; its text holds nothing of them."""


def from_json(raw: bytes | bytearray | memoryview | str | msgspec.Raw, kind: type[T]) -> T:
    """Decode JSON.

    Raises:
        Malformed: whatever is wrong with it: the encoding, the nesting, a number or time out of range, a missing key,
            another type.
    """
    return _sound(lambda: msgspec.json.decode(raw, type=kind))


def converted(value: object, kind: type[T]) -> T:
    """Take what was decoded as any shape for one shape.

    Raises:
        Malformed: as `from_json` does.
    """
    return _sound(lambda: msgspec.convert(value, kind))


def _sound(decode: Callable[[], T]) -> T:
    try:
        return decode()
    except UnicodeError:
        raise Malformed("not UTF-8") from None
    except RecursionError:
        raise Malformed("nested too deeply") from None
    except (ValueError, OverflowError, TypeError) as error:
        raise Malformed(_CONTENT.sub("value", str(error))[:200] or type(error).__name__) from None


def any_json(raw: bytes | bytearray | memoryview | str | msgspec.Raw) -> Any:
    """Decode JSON of any shape, at most `DEEPEST` deep, so that whoever walks through it comes back.

    Raises:
        Malformed: as `from_json` does.
    """
    found: Any = from_json(raw, object)
    level = [found]
    for _ in range(DEEPEST):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [item for items in inner for item in items]
        if not level:
            return found
    raise Malformed("nested too deeply")


def moment(text: str) -> dt.datetime | None:
    """Read a time of RFC 3339 with its zone; None for anything else."""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None and in_range(found) else None


def seconds(header: str | None) -> float | None:
    """Read the header Retry-After, at most an hour; None for a date, and for what is no number."""
    text = (header or "").strip()
    digits = text.lstrip("0") or text[-1:]
    if not (digits.isascii() and digits.isdigit()):
        return None
    return min(float(digits), LONGEST_PAUSE_S) if len(digits) <= 9 else LONGEST_PAUSE_S


def in_range(*times: dt.datetime | None) -> bool:
    """Whether these times lie within the years 1970 to 9000; None does."""
    return all(at is None or _FIRST_YEAR <= at.year < _LAST_YEAR for at in times)


def check_ranges(value: object) -> None:
    """Look at every time and number in a struct of structs.

    Raises:
        Malformed: a time has no zone or is at the calendar's ends, or a number is larger than Go's.
    """
    if isinstance(value, dt.datetime):
        if value.tzinfo is None or not in_range(value):
            raise Malformed("a time is out of range, or has no time zone")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise Malformed("a number is out of range")
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            check_ranges(getattr(value, field))
    elif isinstance(value, Mapping):
        for item in value.values():
            check_ranges(item)
    elif isinstance(value, tuple | list):
        for item in value:
            check_ranges(item)
