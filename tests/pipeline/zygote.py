"""Starts the agent's processes of one image: what takes a second, the imports, is done once, and each pod is a fork.

    python zygote.py     # in the image's folder; a line in begins a process, a line out tells of its end

It needs nothing but the agent's own packages. In: {"pod", "env", "log"}. Out: {"pod", "pid"}, later {"pod", "exit"}.
"""

import ctypes
import gc
import json
import os
import select
import signal
import sys
import traceback

sys.path.insert(0, os.getcwd())

from agent_api.__main__ import main  # type: ignore[import-not-found]  # the image's, not ours


def become(order: dict) -> None:  # type: ignore[type-arg]
    """Be the pod's process from here on: its environment, its output, its end with ours."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(order["env"])
    code = 1
    try:
        code = main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


running: dict[int, str] = {}
gc.freeze()
tell(ready=True)
orders = b""
while True:
    if select.select([0], [], [], 0.05)[0]:
        if not (more := os.read(0, 65536)):
            break
        *lines, orders = (orders + more).split(b"\n")
        for order in map(json.loads, lines):
            if not (pid := os.fork()):
                become(order)
            running[pid] = order["pod"]
            tell(pod=order["pod"], pid=pid)
    while running and (found := os.waitpid(-1, os.WNOHANG))[0]:
        tell(pod=running.pop(found[0]), exit=os.waitstatus_to_exitcode(found[1]))
