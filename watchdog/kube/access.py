"""Where the cluster is, and who we are."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from watchdog.errors import ConfigError
from watchdog.kube.library import Configuration, config
from watchdog.kube.transport import Load, Transport

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT = "~/.kube/config"

_LOGIN_S = 120.0
"""A credential plugin may ask its user to log in with a browser, but not for ever."""


@asynccontextmanager
async def connect(*, kubeconfig: str | None = None, context: str | None = None) -> AsyncIterator[Transport]:
    """Open the way to a cluster and close it afterwards; no request is made yet.

    The order is kubectl's: what is named here, then $KUBECONFIG, then ~/.kube/config where there is one, then the pod's
    own account.

    Args:
        kubeconfig: path of a kubeconfig.
        context: name of a context in it.

    Raises:
        ConfigError: there is no usable kubeconfig.
    """
    named = kubeconfig or os.environ.get("KUBECONFIG") or ""
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and not _existing(DEFAULT)
    load = from_account() if in_pod and not named and not context else from_kubeconfig(named or DEFAULT, context)
    transport = await Transport.open(load)
    try:
        yield transport
    finally:
        await transport.close()


def from_kubeconfig(paths: str, context: str | None) -> Load:
    """Read kubeconfigs anew at each call, tokens and credential plugins included.

    Args:
        paths: one, or several as in $KUBECONFIG.
        context: a context; None takes the current one, which is the first file's that names one, as for kubectl.
    """

    async def load() -> Configuration:
        configuration = Configuration()
        try:
            files = [yaml.safe_load(path.read_text()) or {} for path in _existing(paths)]
            chosen = context or next((file["current-context"] for file in files if file.get("current-context")), None)
            _refuse_impersonation(files, chosen)
            async with asyncio.timeout(_LOGIN_S):
                await config.load_kube_config(
                    config_file=paths, context=chosen, client_configuration=configuration, persist_config=False
                )
        except ConfigError:
            raise
        # The library raises whatever a malformed file leads it to: KeyError, AssertionError, yaml errors, its own.
        except Exception as error:
            hint = str(error).partition("\n")[0] or type(error).__name__
            raise ConfigError(
                "", f"kubeconfig {paths} cannot be used ({hint}); name one with --kubeconfig and --context"
            ) from error
        return configuration

    return load


def _existing(paths: str) -> list[Path]:
    found = (Path(path).expanduser() for path in paths.split(os.pathsep) if path)
    return [path for path in found if path.exists()]


def _refuse_impersonation(files: list[Mapping[str, Any]], context: str | None) -> None:
    """The library ignores it, and whoever asked for fewer rights would act with more."""
    contexts = {item["name"]: item["context"] for file in reversed(files) for item in file.get("contexts") or ()}
    users = {item["name"]: item.get("user") or {} for file in reversed(files) for item in file.get("users") or ()}
    user = users.get((contexts.get(context) or {}).get("user"), {})
    for key in ("as", "as-uid", "as-groups", "as-user-extra"):
        if user.get(key):
            raise ConfigError(
                "", f"the kubeconfig's user acts for another ({key}), which is not supported: use a token"
            )


def from_account(directory: Path = ACCOUNT) -> Load:
    """Read the pod's own account anew at each call; between calls the library re-reads the token every minute."""

    async def load() -> Configuration:
        configuration = Configuration()
        try:
            await asyncio.to_thread(
                config.load_incluster_config,
                client_configuration=configuration,
                token_filename=str(directory / "token"),
                cert_filename=str(directory / "ca.crt"),
            )
        except (config.ConfigException, OSError, ValueError) as error:  # ValueError: bytes that are no text
            raise ConfigError("", f"the pod's service account in {directory} cannot be used ({error})") from error
        return configuration

    return load
