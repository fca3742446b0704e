"""How results look: text for people, one JSON object for machines."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import click
import msgspec

from watchdog.errors import ClusterError, ConfigError, WatchdogError
from watchdog.model import Objection, Revision

GOOD, BREACH, USAGE, CANNOT, NOT_DONE = range(5)

_WIDE = 1000

SCHEMA = 1
"""Version of every command's JSON."""


Cell = str | tuple[str, str]
"""What stands in a table: text, or text and how it is painted."""


class Form(StrEnum):
    """The values of ``--output``."""

    TEXT = "text"
    JSON = "json"


def print_json(command: str | None, fields: Mapping[str, object]) -> None:
    """Print a command's one JSON object."""
    _write(json.dumps({"schema": SCHEMA, "command": command, **fields}, ensure_ascii=False))


def printable(text: str) -> str:
    """Escape what would break a line or paint the terminal: names and causes come from the cluster."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def echo(line: str) -> None:
    """Print one line."""
    _write(printable(line))


def _write(text: str) -> None:
    """Print, and go on where nobody reads any more: what the command did is told by its exit code."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print columns as kubectl does; never folded where no terminal gives a width."""
    from rich.console import Console  # only here: a result in JSON, or in a line, is there sooner without it
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        styled = [(cell, "") if isinstance(cell, str) else cell for cell in row]
        table.add_row(*(Text(printable(text), style) for text, style in styled))  # as Text nothing is read as markup
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    with console.capture() as capture:
        console.print(table)
    _write(capture.get().rstrip("\n"))


def print_progress(text: str) -> None:
    """Tell somebody who waits at a terminal how far it is; a pipe gets only results."""
    if sys.stderr.isatty():
        click.secho(f"  {printable(text)}", err=True, dim=True)


def print_error(text: str) -> None:
    """Print one line on standard error."""
    click.secho(f"Error: {printable(text)}", err=True, fg="red" if sys.stderr.isatty() else None)


def print_failure(error: WatchdogError, form: Form, *, command: str) -> None:
    """Print an error in one line, and as the command's object where JSON is asked for."""
    print_error(str(error))
    if form is Form.JSON:
        detail = ""
        if isinstance(error, ConfigError):
            detail = error.path
        elif isinstance(error, ClusterError):
            detail = error.operation
        code = "".join(f"-{c.lower()}" if c.isupper() else c for c in type(error).__name__).lstrip("-")
        print_json(command, {"error": {"code": code, "message": str(error), "detail": detail}})


def revision_fields(revision: Revision) -> dict[str, object]:
    """A revision in JSON."""
    fields: dict[str, object] = msgspec.to_builtins(revision)
    return {"revision": fields.pop("number"), **fields}


def refusal_fields(refusal: Objection) -> list[dict[str, object]]:
    """The guards that refused, in JSON."""
    return [
        {"guard": str(each.guard), "class": str(each.guard.guard_class), "detail": each.detail}
        for each in (refusal, *refusal.also)
    ]
