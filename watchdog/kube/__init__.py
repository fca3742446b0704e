"""The Kubernetes API, and the only place that imports its client library.

    access      where the cluster is and who we are: in-cluster account or kubeconfig
    transport   one request: deadline, status, token, errors
    cluster     the operations, decoded into `watchdog.objects`
    watching    list and watch that survives what watches die of
    reviews     may somebody do something

kubernetes_asyncio does configuration, TLS and tokens. Its generated methods and models stay unused: they drop fields
they do not know, have no deadline, do not raise on 4xx without preloading and take 700 times as long to decode.
"""

from watchdog.kube.access import connect
from watchdog.kube.cluster import KubeCluster
from watchdog.kube.reviews import Reviews, Right

__all__ = ["KubeCluster", "Reviews", "Right", "connect"]
