"""Send the counts of an evaluation to the watchdog, so that a canary is judged by the quality of its answers too.

    python tests/evaluation/report.py RESULTS.json NAMESPACE/DEPLOYMENT IMAGE

It needs nothing but Python: the pipeline's job that has the canary live has none of the agent's packages. The watchdog
is named by WATCHDOG_URL and answers to WATCHDOG_TOKEN; the id makes a second sending of the same results count once.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path


class ReportError(Exception):
    """The watchdog did not take the counts; the message says why, without the token."""


def send(results: dict[str, object], *, workload: str, image: str, url: str, token: str, timeout_s: float = 10) -> None:
    """Post the counts.

    Args:
        results: with `bad`, `total` and `id`.
        workload: NAMESPACE/DEPLOYMENT that runs the image.
        image: that was evaluated.
        url: of the watchdog.
        token: bearer token.
        timeout_s: for the answer.

    Raises:
        ReportError: no 2xx answer.
    """
    namespace, _, deployment = workload.partition("/")
    counts = {key: results[key] for key in ("bad", "total", "id")}
    body = json.dumps({"namespace": namespace, "deployment": deployment, "image": image, **counts}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    if not url.startswith(("http://", "https://")):
        raise ReportError("WATCHDOG_URL must begin with http:// or https://")
    request = urllib.request.Request(f"{url.rstrip('/')}/evaluations", data=body, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310
            pass
    except urllib.error.HTTPError as error:
        with error:
            raise ReportError(f"the watchdog answered {error.code}{_why(error)}") from None
    except OSError as error:
        raise ReportError(f"the watchdog does not answer: {error}") from None


def _why(error: urllib.error.HTTPError) -> str:
    """What the watchdog says of it, where it says something."""
    try:
        told = json.loads(error.read(10_000))["error"]
        return f": {told['message']} {told['detail']}".rstrip()
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def main(arguments: list[str]) -> int:
    """Send a file; 1 where the watchdog does not take it."""
    path, workload, image = arguments
    results = json.loads(Path(path).read_text())
    try:
        send(
            results, workload=workload, image=image, url=os.environ["WATCHDOG_URL"], token=os.environ["WATCHDOG_TOKEN"]
        )
    except ReportError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{results['bad']} bad of {results['total']} answers reported for {workload}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
