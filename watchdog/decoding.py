"""The one way from foreign bytes to our structs: whatever bytes can raise becomes `Malformed`.

Every border decodes through this: answers of the API server, Prometheus, Alertmanager and Slack, records, annotations,
bodies of requests. An error's text names the field and never repeats the content.
"""

from typing import TypeVar

import msgspec

T = TypeVar("T")


class Malformed(ValueError):
    """Raised when bytes are not what was asked for; its text holds nothing of them."""


def from_json(raw: bytes | bytearray | memoryview | str | msgspec.Raw, kind: type[T]) -> T:
    """Decode JSON.

    Raises:
        Malformed: whatever is wrong with it: the encoding, the nesting, a number or time out of range, a missing key,
            another type.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except UnicodeError:
        raise Malformed("not UTF-8") from None
    except RecursionError:
        raise Malformed("nested too deeply") from None
    except (ValueError, OverflowError, TypeError) as error:
        raise Malformed(str(error)[:200] or type(error).__name__) from None
