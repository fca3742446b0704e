"""Commits of this repository with a change, the images that are built of them, and stand-ins for others' actions."""

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.pipeline.words import Host, StandIn

ROOT = Path(__file__).parents[2]
AGENT = "examples/agent-api"


@dataclass(frozen=True)
class Change:
    """One text of a file that becomes another."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A tree of files, and its hash."""

    sha: str
    tree: Path


class Repository:
    """What is checked out: the files that git knows here, as they are now, each commit with changes of its own.

    Args:
        directory: for the trees.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        self._files = [name for name in names.decode().split("\0") if name and (ROOT / name).is_file()]

    def commit(self, message: str, *changes: Change) -> Commit:
        """Make a commit; each change must find its text exactly once."""
        sha = hashlib.sha1(repr((message, changes)).encode(), usedforsecurity=False).hexdigest()
        tree = self._directory / sha
        if not tree.exists():
            for name in self._files:
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name)
            for change in changes:
                file = tree / AGENT / change.file
                text = file.read_text()
                assert text.count(change.old) == 1, f"{change.file} has {change.old!r} {text.count(change.old)} times"
                file.write_text(text.replace(change.old, change.new))
        return Commit(sha=sha, tree=tree)


@dataclass
class Registry:
    """Images by their digest: a folder with what the Dockerfile copies, of the commit that was checked out.

    Args:
        directory: where they are kept.
    """

    directory: Path
    names: dict[str, Path] = field(default_factory=dict)

    def push(self, name: str, context: Path) -> str:
        """Keep an image and give its digest."""
        copied = [line.split()[1:-1] for line in (context / "Dockerfile").read_text().splitlines() if "COPY " in line]
        sources = sorted({each for line in copied for each in line if not each.startswith(("-", "/"))})
        assert sources == ["agent_api/", "requirements.txt"], f"the Dockerfile copies {sources}"
        digest = hashlib.sha256()
        for path in sorted((context / "agent_api").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(context)}\0".encode() + path.read_bytes())
        found = f"sha256:{digest.hexdigest()}"
        image = self.directory / digest.hexdigest()
        if not image.exists():
            shutil.copytree(context / "agent_api", image / "agent_api", ignore=shutil.ignore_patterns("__pycache__"))
        self.names[f"{name}@{found}"] = image
        return found


def stand_ins(commit: Commit, registry: Registry, python: Path) -> Mapping[str, StandIn]:
    """Who does what the actions of others do; each checks that it is asked as the action would have to be.

    Args:
        commit: is checked out.
        registry: takes the image.
        python: of a venv with the agent's packages, which is on the PATH for both Python's steps.
    """

    def checkout(host: Host, given: Mapping[str, str]) -> Mapping[str, str]:
        assert given == {"persist-credentials": "false"}
        shutil.copytree(commit.tree, host.workspace, dirs_exist_ok=True)
        return {}

    def setup_python(host: Host, given: Mapping[str, str]) -> Mapping[str, str]:
        assert given == {"python-version": "3.13"}
        host.path.insert(0, str(python.parent))
        return {"python-path": str(python)}

    def buildx(host: Host, given: Mapping[str, str]) -> Mapping[str, str]:
        assert not given
        return {}

    def login(host: Host, given: Mapping[str, str]) -> Mapping[str, str]:
        assert given["registry"] == "ghcr.io"
        assert given["username"]
        assert given["password"]
        return {}

    def build(host: Host, given: Mapping[str, str]) -> Mapping[str, str]:
        assert given["push"] == "true"
        return {"digest": registry.push(given["tags"], host.workspace / given["context"])}

    return {
        "actions/checkout": checkout,
        "actions/setup-python": setup_python,
        "docker/setup-buildx-action": buildx,
        "docker/login-action": login,
        "docker/build-push-action": build,
    }
