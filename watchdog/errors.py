"""Everything that can go wrong and is not a decision.

A refusal ("paused", "superseded") is a value, `watchdog.model.Refused`, never an exception. What stands here is what
nobody asked for. The adapters raise these and nothing else; no foreign exception passes their border.

    WatchdogError
     ├── ConfigError              a setting is wrong; names its TOML path and a cure
     ├── UsageError               an argument is wrong; names it and a cure
     │    └── KeyReused           an idempotency key came before, for something else
     ├── NotificationError        a message could not be delivered
     └── ClusterError             the Kubernetes API said no, or nothing
          ├── Unanswered          no usable answer: a write may or may not have happened
          │    ├── ServerError    the API says that it failed
          │    ├── Unreadable     an answer that cannot be decoded
          │    └── TooLong        an answer that is longer than what is read of any
          ├── NotAdmitted         a webhook, a policy or a quota said no, with whatever status it chose
          ├── Denied              401 or 403
          ├── NotFound            404
          ├── Conflict            409 on a stale resourceVersion
          ├── AlreadyExists       409 on a create
          ├── Expired             410: this list or watch must start again
          ├── PreconditionFailed  422 without causes: an operation of a JSON patch failed, mostly a `test`
          ├── Rejected            any other 4xx, such as a validation error
          └── Throttled           429: not done, may be asked again later

Messages are short and are made here or come from ``status.reason``; the apiserver's own ``message`` may hold the whole
object with the values of its environment (docs/design a6) and is not taken over. But one that begins as a refusal does
gives the refuser's name and its own sentence, cut where something like an object begins (`watchdog.kube.refusals`).
"""


class WatchdogError(Exception):
    """The root of the tree."""


class ConfigError(WatchdogError):
    """Raised when a setting is missing, unknown or malformed.

    Args:
        path: where it stands, as a TOML path such as ``policies[0].gitops``; empty for the file as a whole.
        problem: what is wrong and what to write instead.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


class UsageError(WatchdogError):
    """Raised when a command's argument cannot be used; says which and what to type instead."""


class KeyReused(UsageError):
    """Raised when an idempotency key comes again with another request: it names one action, which was another."""


class NotificationError(WatchdogError):
    """Raised when a message could not be delivered, after all repetitions that make sense."""


class ClusterError(WatchdogError):
    """Raised when a request to the Kubernetes API did not succeed.

    Args:
        operation: what was asked, such as ``patch deployments shop/web``.
        reason: the API's reason (``Forbidden``) or ours (``no answer within 10 s``).

    Attributes:
        cure: what a person can do instead, where whoever asked knows that.
        may_pass: whether the same request may well be accepted a moment later.
        retry_after_s: seconds to wait before that, where the API says so; else 0.
    """

    may_pass = True
    retry_after_s = 0.0

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(f"{operation}: {reason}")
        self.operation = operation
        self.reason = reason
        self.cure = ""

    def __str__(self) -> str:
        return f"{self.operation}: {self.reason}{f'; {self.cure}' if self.cure else ''}"

    @property
    def writing(self) -> bool:
        """Whether it was a change that was asked for."""
        return self.operation.startswith("patch ")


class Unanswered(ClusterError):
    """Raised when no usable answer came: a timeout, a cut connection, any 5xx."""


class TooLong(Unanswered):
    """Raised when an answer is longer than what is read of any."""


class Unreadable(Unanswered):
    """Raised when what was answered cannot be decoded."""


class ServerError(Unanswered):
    """Raised when the API answers that it failed: a write will mostly not have happened, but it may have."""


class NotAdmitted(ClusterError):
    """Raised when an admission webhook, a policy or a quota refuses a write, which therefore was not made.

    Args:
        code: the HTTP status, which the refuser chose.
        refuser: its name, such as ``admission webhook "images.example.test"``.
        sentence: what it said, cut and on one line; may be empty.
        retry_after_s: seconds to wait, where it says so; else 0.
    """

    def __init__(self, operation: str, *, code: int, refuser: str, sentence: str, retry_after_s: float = 0.0) -> None:
        super().__init__(operation, f"refused by {refuser}{f': {sentence}' if sentence else ''}")
        self.code = code
        self.refuser = refuser
        self.sentence = sentence
        self.may_pass = code in {409, 422, 429} or code >= 500
        self.retry_after_s = retry_after_s


class Denied(ClusterError):
    """Raised when the API knows the caller not at all (401) or not well enough (403)."""

    may_pass = False


class NotFound(ClusterError):
    """Raised when the object does not exist."""

    may_pass = False


class Conflict(ClusterError):
    """Raised when the object has changed since it was read."""


class AlreadyExists(ClusterError):
    """Raised when an object of that name exists."""


class Expired(ClusterError):
    """Raised when a continue token or a resourceVersion is too old to go on from."""


class PreconditionFailed(ClusterError):
    """Raised when an operation of a JSON patch failed; which one, the API does not tell."""


class Rejected(ClusterError):
    """Raised when the API will not take the request as it is."""

    may_pass = False


class Throttled(ClusterError):
    """Raised when the API asks to come back later.

    Args:
        retry_after_s: seconds to wait, from the header Retry-After; 1 where there is none.
    """

    def __init__(self, operation: str, reason: str, *, retry_after_s: float) -> None:
        super().__init__(operation, reason)
        self.retry_after_s = retry_after_s
