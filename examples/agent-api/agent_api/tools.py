"""The tools that the model may call. Whatever the model writes is input from outside: parsed, bounded, never run."""

import ast
import json
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

KNOWLEDGE = [
    line
    for path in sorted((Path(__file__).parent / "knowledge").glob("*.txt"))
    for line in path.read_text().splitlines()
    if line
]

_MAX_EXPRESSION = 200
_MAX_VALUE = 1e15
_MAX_EXPONENT = 64
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


class ToolError(Exception):
    """A tool cannot do what it was asked; the message is for the model."""


def calculator_tool(expression: str) -> str:
    """Return the value of an arithmetic expression: numbers, `+ - * / // % **` and parentheses.

    Every intermediate value is at most 10^15 and every exponent at most 64, so no expression costs more than
    its length.

    Raises:
        ToolError: it is not arithmetic, too long, too large, or has no value.
    """
    if len(expression) > _MAX_EXPRESSION:
        raise ToolError(f"the expression is longer than {_MAX_EXPRESSION} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ToolError("this is not an arithmetic expression") from None
    return f"{_value(tree.body):.12g}"


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _bounded(_UNARY[type(op)](_value(operand)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            first, second = _value(left), _value(right)
            if isinstance(op, ast.Pow) and abs(second) > _MAX_EXPONENT:
                raise ToolError(f"an exponent is at most {_MAX_EXPONENT}")
            try:
                return _bounded(_BINARY[type(op)](first, second))
            except ZeroDivisionError:
                raise ToolError("division by zero") from None
            except OverflowError:
                raise ToolError("the result is too large") from None
    raise ToolError("only numbers, + - * / // % ** and parentheses are allowed")


def _bounded(value: Any) -> float:
    if isinstance(value, complex):
        raise ToolError("the result is not a real number")
    if not abs(value) <= _MAX_VALUE:  # also a NaN, which compares with nothing
        raise ToolError("the result is too large")
    return value


def search_tool(query: str, *, limit: int = 3) -> str:
    """Return the passages that share most words with the query, the best first, one a line."""
    wanted = _words(query)
    scored = [(len(wanted & _words(passage)), passage) for passage in KNOWLEDGE]
    found = sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])
    return "\n".join(passage for _, passage in found[:limit]) or "nothing found"


def _words(text: str) -> set[str]:
    return {word.removesuffix("s") for word in re.findall(r"[a-z0-9]{3,}", text.lower())} - {
        "the",
        "and",
        "for",
        "what",
    }


TOOLS: dict[str, tuple[str, Callable[[str], str]]] = {
    "calculator": ("expression", calculator_tool),
    "search": ("query", search_tool),
}

SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {TOOLS[name][0]: {"type": "string"}},
                "required": [TOOLS[name][0]],
                "additionalProperties": False,
            },
        },
    }
    for name, description in (
        ("calculator", "Calculates an arithmetic expression, such as 3 * (4.5 + 1)."),
        ("search", "Searches what is known of Northwind Parcels: prices, times, limits, claims."),
    )
]


def call_tool(name: str, arguments: str) -> str:
    """Do one tool call of the model's and return what the model is told, failures too.

    Args:
        name: as the model wrote it.
        arguments: the JSON that the model wrote.
    """
    try:
        parameter, tool = _tool(name)
        return tool(parse_arguments(arguments, parameter))
    except ToolError as error:
        return f"error: {error}"


def parse_arguments(arguments: str, parameter: str) -> str:
    """Return the one argument of a tool call.

    Raises:
        ToolError: the JSON is none, or does not have exactly this parameter as a text.
    """
    try:
        parsed = json.loads(arguments)
    except ValueError:
        raise ToolError("the arguments are not JSON") from None
    if not isinstance(parsed, dict) or set(parsed) != {parameter} or not isinstance(parsed[parameter], str):
        raise ToolError(f"the arguments must be an object with the text {parameter!r} alone")
    return parsed[parameter]


def _tool(name: str) -> tuple[str, Callable[[str], str]]:
    if name not in TOOLS:
        raise ToolError(f"there is no tool {name[:40]!r}")
    return TOOLS[name]
