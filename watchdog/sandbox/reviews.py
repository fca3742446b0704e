"""Who somebody is and what they may do. In the sandbox everybody may do everything, unless a test says otherwise.

A token is a name, and `Accounts` keeps whose it is and for which audience.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from watchdog.sandbox.refusals import forbidden, unauthorized

Json = dict[str, Any]

_MASTERS = "system:masters"
_OF_ONESELF = frozenset({"selfsubjectreviews", "selfsubjectaccessreviews"})
API_AUDIENCE = "https://kubernetes.default.svc"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Whose a token is.

    Args:
        username: such as ``system:serviceaccount:shop:deployer``.
        groups: besides ``system:authenticated``.
        audience: for whom the token was made.
    """

    username: str
    groups: tuple[str, ...] = ()
    audience: str = API_AUDIENCE


class Accounts:
    """The tokens that are known, and who may do what.

    Args:
        tokens: accounts by token; a request with no token, or another, is the administrator's.
        may: whether a user may do what resource attributes say; by default, everything. The administrator is not asked.
    """

    def __init__(
        self,
        tokens: Mapping[str, Account] | None = None,
        may: Callable[[str, Json], bool] = lambda user, attributes: True,
    ) -> None:
        self._tokens = dict(tokens or {})
        self._may = may

    def add(self, token: str, account: Account) -> None:
        """Make a token known."""
        self._tokens[token] = account

    def whoami(self, token: str) -> Account:
        """Whose request this is. Raises `ApiError` 401 where the token is for another audience."""
        account = self._tokens.get(token, Account(username="sandbox-admin", groups=(_MASTERS,)))
        if account.audience != API_AUDIENCE:
            raise unauthorized()
        return account

    def authorize(self, account: Account, attributes: Json) -> None:
        """Let a request pass that its user may make.

        Args:
            account: whose it is.
            attributes: verb, group, resource, subresource, namespace and name, as in a SubjectAccessReview.

        Raises:
            ApiError: 403, they may not.
        """
        resource = attributes["resource"]
        if resource in _OF_ONESELF or self._allowed(account.username, account.groups, attributes):
            return
        whole = "/".join(filter(None, (resource, attributes["subresource"])))
        raise forbidden(
            account.username,
            attributes["verb"],
            whole,
            attributes["group"],
            namespace=attributes["namespace"],
            name=attributes["name"],
        )

    def _allowed(self, user: str, groups: Iterable[str], attributes: Json) -> bool:
        return _MASTERS in groups or self._may(user, attributes)

    def review(self, resource: str, body: Json, *, token: str) -> Json | None:
        """The answer to a review; None where there is none of that name."""
        spec = body.get("spec") or {}
        match resource:
            case "tokenreviews":
                status = self._token_review(spec)
            case "selfsubjectreviews":
                status = {"userInfo": _user(self.whoami(token))}
            case "subjectaccessreviews":
                user, groups = spec.get("user", ""), spec.get("groups") or ()
                status = {"allowed": self._allowed(user, groups, spec.get("resourceAttributes") or {})}
            case "selfsubjectaccessreviews":
                who = self.whoami(token)
                status = {"allowed": self._allowed(who.username, who.groups, spec.get("resourceAttributes") or {})}
            case _:
                return None
        return {**body, "metadata": {"creationTimestamp": None}, "status": status}

    def _token_review(self, spec: Json) -> Json:
        account = self._tokens.get(spec.get("token", ""))
        audiences = spec.get("audiences") or [API_AUDIENCE]
        if account is None:
            return {"user": {}, "error": "[invalid bearer token, unknown token]"}
        if account.audience not in audiences:
            wanted, has = " ".join(f'"{audience}"' for audience in audiences), account.audience
            problem = f'token audiences ["{has}"] is invalid for the target audiences [{wanted}]'
            return {"user": {}, "error": f"[invalid bearer token, {problem}]"}
        return {"authenticated": True, "user": _user(account), "audiences": [account.audience]}


def _user(account: Account) -> Json:
    return {"username": account.username, "groups": [*account.groups, "system:authenticated"]}
