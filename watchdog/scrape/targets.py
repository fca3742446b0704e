"""Where a pod is asked: at the address that the API server gives, and nowhere else.

A pod's annotations choose port and path, never the host: whoever can write them could otherwise have the service speak
to anything it can reach.
"""

import ipaddress

import msgspec
from yarl import URL

from watchdog.config import Scheme, Scrape
from watchdog.objects import Pod

PREFIX = "prometheus.io"
_OVER = frozenset({"Succeeded", "Failed"})


class Target(msgspec.Struct, frozen=True):
    """One pod's exposition, and the labels that the service gives its series."""

    url: URL
    namespace: str
    pod: str
    container: str
    instance: str
    job: str

    @property
    def labels(self) -> dict[str, str]:
        """What the series of this target carry besides their own labels."""
        found = {"namespace": self.namespace, "pod": self.pod, "container": self.container}
        return {**found, "instance": self.instance, "job": self.job}


def target(pod: Pod, settings: Scrape) -> Target | str:
    """Say where a pod is asked, or in a few words why it is not; empty while it only has to be waited for."""
    notes = pod.metadata.annotations
    if not pod.status.pod_ip or pod.status.phase in _OVER:
        return ""
    if notes.get(f"{PREFIX}/scrape") == "false":
        return f"its annotation {PREFIX}/scrape says false"
    if (address := _address(pod.status.pod_ip)) is None:
        return f"its address {pod.status.pod_ip!r} is none of a pod"
    if isinstance(port := _port(pod, settings), str):
        return port
    path, scheme = notes.get(f"{PREFIX}/path", settings.path), notes.get(f"{PREFIX}/scheme", settings.scheme)
    if not path.startswith("/"):
        return f"its path {path!r} does not begin with /"
    if scheme not in list(Scheme):
        return f"its scheme {scheme!r} is neither http nor https"
    try:
        url = URL.build(scheme=scheme, host=address, port=port, path=path)
    except ValueError:
        return f"its path {path[:60]!r} or port cannot be in a URL"
    return Target(
        url=url,
        namespace=pod.metadata.namespace,
        pod=pod.metadata.name,
        container=_container(pod, port),
        instance=f"[{address}]:{port}" if ":" in address else f"{address}:{port}",
        job=settings.job,
    )


def _address(text: str) -> str | None:
    """The address in its one spelling; None for a name, and for what no pod has, such as the cloud's metadata."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None) or found
    return None if mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified else str(found)


def _port(pod: Pod, settings: Scrape) -> int | str:
    noted = pod.metadata.annotations.get(f"{PREFIX}/port", "")
    if noted:
        good = noted.isascii() and noted.isdigit() and len(noted) <= 5 and 0 < int(noted) < 65536
        return int(noted) if good else f"its port {noted!r} is no port"
    if settings.port:
        return settings.port
    declared = {
        port.container_port for container in pod.spec.containers for port in container.ports if port.protocol == "TCP"
    }
    if len(declared) == 1:
        return declared.pop()
    return f"it declares {len(declared) or 'no'} ports: annotate it with {PREFIX}/port, or set scrape.port"


def _container(pod: Pod, port: int) -> str:
    """The container that declares the port; else the first, as one process serves the metrics of most pods."""
    containers = pod.spec.containers
    declares = (each.name for each in containers if any(one.container_port == port for one in each.ports))
    return next(declares, containers[0].name if containers else "")
