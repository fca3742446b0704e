"""What may come over a border instead of an answer: random bytes, random JSON, and valid documents with one change."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

_MARK = "raw-literal-"
LITERALS = (
    b"1e400",
    b"-1e400",
    b"1" + b"0" * 400,
    b"-1" + b"0" * 5000,
    b"NaN",
    b'"\\ud800"',
    b'"\xff\xfe"',
    b"[" * 3000 + b"]" * 3000,
    b'{"a":' * 150 + b"1" + b"}" * 150,
    b'{"a":' * 20_000,
    b"",
)
"""What stands in a document as it is, since no encoder would write it."""

ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63) - 1,
    1.5,
    1e308,
    -1e308,
    "",
    "x",
    "0",
    "-1",
    "٣",
    "²",
    "9" * 30,
    "1e400",
    "NaN",
    "+Inf",
    "../../secrets/x",
    "a/b?c=d#e",
    "AB_c",
    "\x00",
    "line\nline",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2026-12-01T00:00:00",
    "2026-12-01",
    "(((a+)+)+)+!",
    "[",
    "y" * 100_000,
    [],
    [None],
    [1, 2],
    {},
    {"a": 1},
    {"name": []},
    *(f"{_MARK}{index}" for index in range(len(LITERALS))),
)


def encoded(document: Any) -> bytes:
    """Write a document, with what no encoder would write."""
    text = json.dumps(document).encode()
    for index, literal in reversed(list(enumerate(LITERALS))):
        text = text.replace(f'"{_MARK}{index}"'.encode(), literal)
    return text


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a document, each with every key of it."""
    pending = [document]
    while pending:
        found = pending.pop()
        keys = list(found) if isinstance(found, dict) else range(len(found)) if isinstance(found, list) else ()
        for key in keys:
            yield found, key
            pending.append(found[key])


def changed(document: Any, chance: random.Random) -> Any:
    """Give a copy in which one value was removed, replaced, wrapped, doubled or made an odd one."""
    document = copy.deepcopy(document)
    places = list(_places(document))
    if not places or chance.random() < 0.03:
        return chance.choice(ODD)
    found, key = chance.choice(places)
    match chance.randrange(8):
        case 0:
            del found[key]
        case 1:
            found[key] = [found[key]]
        case 2:
            found[key] = {"a": found[key]}
        case 3 if isinstance(found, list):
            found += [found[key]] * chance.choice((1, 50))
        case 4 if isinstance(found, dict):
            found[chance.choice(("", "a", "__name__", key + "x"))] = found.pop(key)
        case _:
            found[key] = chance.choice(ODD)
    return document


def anything(chance: random.Random, depth: int = 0) -> Any:
    """Random JSON."""
    kind = chance.randrange(5 if depth < 5 else 3)
    if kind == 3:
        return [anything(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 4:
        return {str(chance.choice(ODD))[:20]: anything(chance, depth + 1) for _ in range(chance.randrange(4))}
    return chance.choice(ODD)


def spoilt(raw: bytes, chance: random.Random) -> bytes:
    """Bytes of a valid answer with one of them changed, some missing, or others before or after."""
    at = chance.randrange(len(raw) + 1)
    odd = chance.choice((b"\xff", b"\x00", b"\xef\xbb\xbf", b"\n", b'"', b"}", b"\\", bytes([chance.randrange(256)])))
    match chance.randrange(4):
        case 0:
            return raw[:at]
        case 1:
            return raw[at:]
        case 2:
            return raw[:at] + odd + raw[at:]
        case _:
            return raw[:at] + odd + raw[at + 1 :]


def garbage(chance: random.Random, *valid: Any) -> bytes:
    """One input for a border that takes JSON, made of one of its valid documents more often than not."""
    match chance.randrange(12):
        case 0:
            return chance.randbytes(chance.randrange(200))
        case 1:
            return encoded(anything(chance))
        case 2:
            return spoilt(encoded(chance.choice(valid)), chance)
        case _:
            return encoded(changed(chance.choice(valid), chance))


def garbled(chance: random.Random, text: str) -> bytes:
    """One input for a border that takes lines: a value, a line or some bytes of a valid text are changed."""
    lines = text.split("\n")
    index = chance.randrange(len(lines))
    match chance.randrange(6):
        case 0:
            return chance.randbytes(chance.randrange(200))
        case 1:
            return spoilt(text.encode(), chance)
        case 2:
            del lines[index]
        case 3:
            lines[index] += lines[index]
        case 4:
            lines.insert(index, lines[chance.randrange(len(lines))])
        case _:
            words = lines[index].split(" ")
            odd = chance.choice((*ODD, *LITERALS))
            words[chance.randrange(len(words))] = odd.decode(errors="replace") if isinstance(odd, bytes) else str(odd)
            lines[index] = " ".join(words)
    return "\n".join(lines).encode(errors="surrogatepass")
