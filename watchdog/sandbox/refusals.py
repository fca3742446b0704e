"""What the API says when it says no: a Status with a code, a reason and what it is about."""

from typing import Any

import msgspec

Json = dict[str, Any]


class ApiError(Exception):
    """Raised where the API answers with a Status that is a failure.

    Args:
        code: the HTTP status.
        reason: the machine-readable word, such as ``NotFound``.
        message: for people.
        details: what it is about, and the causes of a validation error.
    """

    def __init__(self, code: int, reason: str, message: str, *, details: Json | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def status(self) -> Json:
        """The body of the answer."""
        status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        return status if self.details is None else {**status, "details": self.details}


def not_found(resource: str, group: str, name: str) -> ApiError:
    """There is no such object."""
    details = _about(resource, group, name)
    return ApiError(404, "NotFound", f'{_qualified(resource, group)} "{name}" not found', details=details)


def already_exists(resource: str, group: str, name: str) -> ApiError:
    """There is one of that name."""
    details = _about(resource, group, name)
    return ApiError(409, "AlreadyExists", f'{_qualified(resource, group)} "{name}" already exists', details=details)


def unauthorized() -> ApiError:
    """The token is no token for the API."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(user: str, verb: str, resource: str, group: str, *, namespace: str, name: str) -> ApiError:
    """The user may not do that."""
    where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    asked = f'User "{user}" cannot {verb} resource "{resource}" in API group "{group}"{where}'
    about = _qualified(resource, group) + (f' "{name}"' if name else "")
    details = _about(resource.partition("/")[0], group, name)
    return ApiError(403, "Forbidden", f"{about} is forbidden: {asked}", details=details)


def conflict(resource: str, group: str, name: str, problem: str = "") -> ApiError:
    """The object is another one than the writer has read."""
    problem = problem or ("the object has been modified; please apply your changes to the latest version and try again")
    message = f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {problem}'
    return ApiError(409, "Conflict", message, details=_about(resource, group, name))


def invalid(kind: str, group: str, name: str, *causes: tuple[str, str]) -> ApiError:
    """A validation error; a cause is a field and what is wrong with it."""
    listed = [{"reason": _cause(problem), "message": problem, "field": field} for field, problem in causes]
    texts = [f"{field}: {problem}" for field, problem in causes]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    kind_name = f"{kind}.{group}" if group else kind
    details = {"name": name, "group": group, "kind": kind, "causes": listed}
    return ApiError(422, "Invalid", f'{kind_name} "{name}" is invalid: {text}', details=details)


def patch_failed() -> ApiError:
    """An operation of a JSON patch failed; the API does not tell which (docs/design a1)."""
    message = "the server rejected our request due to an error in our request"
    return ApiError(422, "Invalid", message, details={})


def unknown_in_patch(text: str, problem: str) -> ApiError:
    """A patched object has fields that there are not; the message has it whole, secrets and all (docs/design a6)."""
    message = f"Invalid value: {msgspec.json.encode(text).decode()}: {problem}"
    details = {"causes": [{"reason": "FieldValueInvalid", "message": message, "field": "patch"}]}
    return ApiError(422, "Invalid", f' "" is invalid: patch: {message}', details=details)


def bad_request(message: str) -> ApiError:
    """The request makes no sense."""
    return ApiError(400, "BadRequest", message)


def expired(asked: int, oldest: int) -> ApiError:
    """A watch or a list cannot go on from there."""
    return ApiError(410, "Expired", f"too old resource version: {asked} ({oldest})")


def missing(what: str) -> ApiError:
    """The real API has this, the sandbox has not; `what` names it."""
    return ApiError(501, "NotImplemented", f"the sandbox has no {what}")


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def _about(resource: str, group: str, name: str) -> Json:
    return {"name": name, **({"group": group} if group else {}), "kind": resource}


def _cause(problem: str) -> str:
    if problem.startswith("Required value"):
        return "FieldValueRequired"
    if problem.startswith("Too long"):
        return "FieldValueTooLong"
    return "FieldValueNotSupported" if problem.startswith("Unsupported value") else "FieldValueInvalid"
