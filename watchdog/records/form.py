"""A record as text: JSON of at most 64 KiB, which the process before and the next one can read too.

What does not fit goes in this order, the oldest first: what single pods counted in a block, which no evidence follows
from (`evaluate` gives the record's number without it), blocks (the newest 8 of each signal stay), verdicts (the newest
10 stay), guards that did not lower the incident, facts about pods (those gone longest first, then live ones, which the
API server still shows), alerts, and at last those blocks. The plan, the writes, the images and what people said always
stay. Prometheus still has the blocks that went, and the plan has the counts that decided.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from watchdog.decide.record import SCHEMA, Record
from watchdog.decoding import Malformed, Whole, check_ranges, from_json
from watchdog.judge.blocks import Block, PodTimeline

T = TypeVar("T")

LONGEST_BYTES = 64 * 1024
_NEWEST_BLOCKS = 8
_NEWEST = 10


class NoRecord(ValueError):  # noqa: N818  (reads as what happened, as in watchdog.errors)
    """Raised when a text is no record that this version understands; says why, without the text."""


class _SchemaHead(msgspec.Struct, frozen=True):
    schema: Whole


def write(record: Record) -> str:
    """Give the text of a record, thinned to `LONGEST_BYTES` of UTF-8."""
    text = _encode(record)
    for shorten in _SHORTENING:
        if len(text) <= LONGEST_BYTES:
            break
        record = shorten(record, len(text) - LONGEST_BYTES)
        text = _encode(record)
    return text.decode()


def read(text: str) -> Record:
    """Read a record; fields that are unknown here are passed over.

    Raises:
        NoRecord: it is malformed, or of a newer schema.
    """
    try:
        schema = from_json(text, _SchemaHead).schema
        if schema > SCHEMA:
            raise NoRecord(f"schema {schema} is newer than {SCHEMA}, the newest that this version knows")
        record = from_json(_renamed(text), Record)
        check_ranges(record)
    except Malformed as error:
        raise NoRecord(str(error)) from error
    return record


def _renamed(text: str) -> str:
    """Give a record of an earlier version the names of this one; a quote within a string would be escaped."""
    return text.replace('"incident_first":{"reason":', '"incident_first":{"lowers":true,"guard":')


def _encode(record: Record) -> bytes:
    """The schema is written always, though it is the default: the default of the next version is another one."""
    body = msgspec.json.encode(msgspec.structs.replace(record, schema=SCHEMA))
    return b'{"schema":%d,' % SCHEMA + body[1:]


def _enough(items: Iterable[T], excess: int) -> list[T]:
    """The first items that together make up so many bytes; all, if they do not."""
    found = []
    for item in items:
        if excess <= 0:
            break
        found.append(item)
        excess -= len(msgspec.json.encode(item)) + 1
    return found


def _bare(record: Record, excess: int) -> Record:
    """Without what single pods counted, in the oldest blocks."""
    counted = sorted((each for blocks in record.blocks.values() for each in blocks if each.pods), key=_step)
    going = {each.step for each in counted[: len(_enough((each.pods for each in counted), excess))]}
    rest = {
        signal: tuple(msgspec.structs.replace(each, pods=()) if each.step in going else each for each in blocks)
        for signal, blocks in record.blocks.items()
    }
    return msgspec.structs.replace(record, blocks=rest)


def _step(block: Block) -> int:
    return block.step


def _blocks(keep: int) -> Callable[[Record, int], Record]:
    def shorten(record: Record, excess: int) -> Record:
        older = (block for blocks in record.blocks.values() for block in blocks[: max(0, len(blocks) - keep)])
        going = _enough(sorted(older, key=_step), excess)
        last = going[-1].step if going else -math.inf
        rest = {
            signal: tuple(
                block for index, block in enumerate(blocks) if block.step > last or index >= len(blocks) - keep
            )
            for signal, blocks in record.blocks.items()
        }
        return msgspec.structs.replace(record, blocks=rest)

    return shorten


def _items(field: str, expendable: Callable[[Record], Sequence[T]]) -> Callable[[Record, int], Record]:
    def shorten(record: Record, excess: int) -> Record:
        going = set(_enough(expendable(record), excess))
        rest = tuple(item for item in getattr(record, field) if item not in going)
        return msgspec.structs.replace(record, **{field: rest})

    return shorten


def _gone_longest(pod: PodTimeline) -> tuple[bool, float]:
    return (pod.gone is None, pod.created if pod.gone is None else pod.gone)


_SHORTENING = (
    _bare,
    _blocks(_NEWEST_BLOCKS),
    _items("verdicts", lambda record: record.verdicts[:-_NEWEST]),
    _items("objections", lambda record: [each for each in record.objections if not each.asks]),
    _items("pods", lambda record: sorted(record.pods, key=_gone_longest)),
    _items("alerts", lambda record: record.alerts[:-_NEWEST]),
    _blocks(0),
)
