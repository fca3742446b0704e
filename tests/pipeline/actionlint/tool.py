"""actionlint, built from the module beside this file and cached under a hash of it."""

import hashlib
import os
import subprocess
from pathlib import Path

from tests.controlplane.build import CACHE, _go


def build() -> Path:
    """Return the binary, which is built at the first call: ten seconds.

    Raises:
        subprocess.CalledProcessError: the build failed.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256((here / "go.mod").read_bytes() + (here / "go.sum").read_bytes()).hexdigest()[:12]
    binary = CACHE / "actionlint" / digest / "actionlint"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        unfinished = binary.with_name(f"unfinished-{os.getpid()}")
        environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
        command = [str(_go()), "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", str(unfinished)]
        subprocess.run([*command, "github.com/rhysd/actionlint/cmd/actionlint"], cwd=here, env=environment, check=True)
        unfinished.rename(binary)
    return binary
