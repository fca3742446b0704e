"""`python -m tests.controlplane build|run|path`: build the binaries, run a plane, say what is there."""

import signal
import sys

from tests.controlplane import build
from tests.controlplane.plane import ControlPlane, ControlPlaneError


def run() -> int:
    """Run a plane in the foreground until Ctrl-C or SIGTERM."""
    for stop in (signal.SIGINT, signal.SIGTERM):  # a shell that starts it in the background ignores SIGINT
        signal.signal(stop, signal.default_int_handler)
    try:
        with ControlPlane() as plane:
            print(f"kubeconfig: {plane.kubeconfig}")
            print(f"try: {plane.kubectl} --kubeconfig={plane.kubeconfig} get nodes\nCtrl-C stops it", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except ControlPlaneError as error:
        print(error, file=sys.stderr)
    return 1


def path() -> int:
    """Print each binary's path; 1 when some are missing."""
    found, missing = build.find()
    print(*found.values(), sep="\n")
    if missing:
        print(f"missing: {', '.join(missing)}; `{build.COMMAND}` builds them", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    commands = {"build": build.main, "run": run, "path": path}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit("usage: python -m tests.controlplane build|run|path")
    sys.exit(commands[sys.argv[1]]())
