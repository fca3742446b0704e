"""From a message and its context to what the model is sent."""

import string
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

SYSTEM = (Path(__file__).parent / "system.txt").read_text()
QUESTION = string.Template("<context>\n$context\n</context>\n<question>\n$question\n</question>")


class Turn(TypedDict):
    """One thing that was said before."""

    role: str
    content: str


def build_prompt(message: str, context: Sequence[Turn]) -> list[Turn]:
    """Return the messages for the model: the rules, then the question with what was said before.

    The earlier turns stand inside the question as text and not as turns of their own: nothing that a user or a model
    wrote earlier can then speak with the role of the system. Angle brackets in them are escaped, so that no text can
    close its own tag.
    """
    said = "\n".join(f"{turn['role']}: {_plain(turn['content'])}" for turn in context) or "(nothing yet)"
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": QUESTION.substitute(context=said, question=_plain(message))},
    ]


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
