"""Who refused a write, and why: read from the one kind of message that may be taken over.

The API server's messages may hold the whole object with the values of its environment (docs/design a6). Those of a
refusal begin in one of few known ways; what follows is the refuser's own sentence. Whatever begins otherwise gives
nothing.

Sources: k8s.io/apiserver pkg/admission/plugin/webhook/errors/statuserror.go and webhook/error.go,
pkg/admission/plugin/policy/validating/dispatcher.go, pkg/admission/plugin/resourcequota/controller.go.
"""

import re

import msgspec

_SENTENCE = 200
_NAME = r"[A-Za-z0-9][-A-Za-z0-9._:/]{0,252}"
_ABOUT = rf'(?:{_NAME} "{_NAME}" is (?:forbidden|invalid): )?'
_SHAPES = tuple(
    re.compile(pattern, flags=re.DOTALL)
    for pattern in (
        rf'(?P<refuser>admission webhook "{_NAME}") denied the request(?:: (?P<sentence>.*)| without explanation)',
        rf"{_ABOUT}(?P<refuser>ValidatingAdmissionPolicy '{_NAME}')(?: with binding '{_NAME}')? denied request"
        r"(?:: (?P<sentence>.*))?",
        rf"{_ABOUT}(?P<sentence>exceeded quota: (?P<refuser>{_NAME}), requested: .*)",
        rf'(?:Internal error occurred: )?failed calling (?P<refuser>webhook "{_NAME}"): (?P<sentence>.*)',
    )
)
_RIGHT = re.compile(
    rf'{_ABOUT}(User "[^"]{{1,120}}" cannot [a-z]{{1,20}} resource "[-a-z./]{{1,80}}"'
    r'(?: in API group "[-a-z0-9.]{0,80}")?(?: in the namespace "[-a-z0-9]{1,63}")?)'
)
_OBJECT = re.compile(r"\{|map\[|\\\"|&v1\.")


class Refusal(msgspec.Struct, frozen=True):
    """A refuser's name as messages show it, and its own sentence: printable, on one line, cut; it may be empty."""

    refuser: str
    sentence: str


def read(message: str) -> Refusal | None:
    """The refusal that a message tells of; None where it does not begin as one."""
    for shape in _SHAPES:
        if found := shape.fullmatch(message):
            refuser, sentence = found["refuser"], found["sentence"] or ""
            return Refusal(f"quota {refuser}" if sentence.startswith("exceeded") else refuser, _own_words(sentence))
    return None


def missing_right(message: str) -> str:
    """Which right a 403 says is missing; empty where it says something else."""
    found = _RIGHT.match(message)
    return _own_words(found[1]) if found else ""


def _own_words(sentence: str) -> str:
    """A sentence as far as it does not look like an object, on one line and cut."""
    words = _OBJECT.split(sentence[: 4 * _SENTENCE], maxsplit=1)[0]
    seen = " ".join("".join(char if char.isprintable() else " " for char in words).split())
    cut = len(seen) > _SENTENCE or len(words) < len(sentence)
    return f"{seen[: _SENTENCE - 1].rstrip()}…" if cut else seen
