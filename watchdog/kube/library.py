"""What is used of kubernetes_asyncio: configuration, TLS, tokens and credential plugins.

Importing that package loads all of its generated methods and models, none of which is used here, and takes longer than
everything else that a command imports. So the package and its `client` are made known without running their `__init__`.
If somebody has imported it whole already, it is used as it is.
"""

import sys
from importlib.util import find_spec
from types import ModuleType


def _known(name: str) -> ModuleType:
    if name not in sys.modules:
        spec = find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = ModuleType(name)
        module.__spec__, module.__path__ = spec, list(spec.submodule_search_locations or ())
        sys.modules[name] = module
    return sys.modules[name]


_known("kubernetes_asyncio")
_client = _known("kubernetes_asyncio.client")

from kubernetes_asyncio.client.configuration import Configuration  # noqa: E402

if not hasattr(_client, "Configuration"):
    # kube_config names both as it is imported, and uses the second only where it makes a client.
    _client.Configuration, _client.ApiClient = Configuration, None  # type: ignore[attr-defined]

from kubernetes_asyncio import config  # noqa: E402
from kubernetes_asyncio.client.rest import RESTClientObject  # noqa: E402

__all__ = ["Configuration", "RESTClientObject", "config"]
