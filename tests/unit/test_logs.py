"""The log: one line per decision, for machines, whatever foreign texts are in it."""

import io
import json
import logging
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.cli.logs import JsonLines, set_up
from watchdog.config import Log, LogFormat, LogLevel

CONTROLS = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Zl", "Zp")]


def line(message: str, *args: object, exc_info: Any = None, **fields: object) -> str:
    """Format a record as it would be written, with the fields that `extra` gives it."""
    record = logging.makeLogRecord(
        {"name": "watchdog.engine.act", "levelname": "WARNING", "msg": message, "args": args, "exc_info": exc_info}
    )
    record.__dict__.update(fields)
    return JsonLines().format(record)


@pytest.fixture
def own_loggers() -> Iterator[None]:
    """Give the loggers back as they were."""
    root, ours = logging.getLogger(), logging.getLogger("watchdog")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_a_decision_is_one_object_with_what_it_is_about() -> None:
    text = line(
        "rollback refused: %s", "hold", event="refused", incident="web-3-0badf00d", workload="shop/web", guard="hold"
    )
    found = json.loads(text)
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "warning",
        "logger": "watchdog.engine.act",
        "message": "rollback refused: hold",
        "event": "refused",
        "incident": "web-3-0badf00d",
        "workload": "shop/web",
        "guard": "hold",
    }


def test_what_a_decision_is_not_about_is_left_out() -> None:
    assert json.loads(line("done", event="rolled-back", guard=None)).keys() == {
        "time",
        "level",
        "logger",
        "message",
        "event",
    }


def test_an_unforeseen_error_brings_its_traceback_inside_the_line() -> None:
    with pytest.raises(ValueError, match="by nobody") as caught:
        int("by nobody")
    text = line("unforeseen error", exc_info=(caught.type, caught.value, caught.tb))
    assert "\n" not in text
    assert "ValueError: invalid literal" in json.loads(text)["traceback"]


@pytest.mark.parametrize("field", ["message", "workload"])
def test_no_control_character_of_a_foreign_text_leaves_the_string_it_is_in(field: str) -> None:
    # A terminal obeys some of them, and readers split lines at others.
    foreign = "before" + "".join(CONTROLS) + "after"
    text = line("%s", foreign) if field == "message" else line("done", workload=foreign)
    assert json.loads(text)[field] == foreign
    assert [character for character in CONTROLS if character in text] == []


@given(foreign=st.text())
def test_a_line_cannot_be_forged_by_a_foreign_text(foreign: str) -> None:
    text = line("hold: %s", foreign, event=foreign)
    assert "\n" not in text
    assert json.loads(text)["message"] == f"hold: {foreign}"
    assert json.loads(text)["event"] == foreign


@pytest.mark.parametrize(
    ("form", "expected"),
    [(LogFormat.AUTO, "json"), (LogFormat.JSON, "json"), (LogFormat.TEXT, "text")],
)
@pytest.mark.usefixtures("own_loggers")
def test_away_from_a_terminal_the_log_is_json_unless_text_is_asked_for(form: LogFormat, expected: str) -> None:
    with redirect_stderr(io.StringIO()) as written:
        set_up(Log(format=form))
        logging.getLogger("watchdog.engine.act").info("done")
    text = written.getvalue()
    assert text == "INFO done\n" if expected == "text" else json.loads(text)["message"] == "done"


@pytest.mark.usefixtures("own_loggers")
def test_the_level_is_ours_and_libraries_only_warn() -> None:
    with redirect_stderr(io.StringIO()) as written:
        set_up(Log(level=LogLevel.DEBUG, format=LogFormat.TEXT))
        for name in ("watchdog.kube.transport", "aiohttp.client"):
            for level in (logging.DEBUG, logging.WARNING):
                logging.getLogger(name).log(level, "from %s", name)
    assert written.getvalue().splitlines() == [
        "DEBUG from watchdog.kube.transport",
        "WARNING from watchdog.kube.transport",
        "WARNING from aiohttp.client",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("form", "shown"), [(LogFormat.AUTO, ["problem"]), (LogFormat.JSON, ["done", "problem"])])
@pytest.mark.usefixtures("own_loggers")
def test_at_a_terminal_only_problems_are_shown_unless_a_form_is_asked_for(form: LogFormat, shown: list[str]) -> None:
    with redirect_stderr(Terminal()) as written:
        set_up(Log(format=form))
        logging.getLogger("watchdog").info("done")
        logging.getLogger("watchdog").warning("problem")
    assert [word for word in ("done", "problem") if word in written.getvalue()] == shown
