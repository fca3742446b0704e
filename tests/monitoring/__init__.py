"""Real Prometheus and Alertmanager for tests, and the metrics of the pods that the fake kubelet plays.

    pytest_plugins = ["tests.monitoring.fixtures"]  # exporter, prometheus (session), alertmanager (function)

    def test_it(cluster: Cluster, exporter: Exporter, prometheus: PrometheusServer, alertmanager: AlertmanagerServer):
        cluster.create_deployment("web", template_annotations={"sim/rps": "50", "sim/errors": "0.1"})
        prometheus.reload([agent_errors(cluster.namespace, "web")], alertmanagers=[alertmanager.url])
        alertmanager.reload(["http://127.0.0.1:8080/alerts"], token_file=tmp_path / "token")
        exporter.set(f"{cluster.namespace}/web-", errors=0.5)   # also rps; saw_tooth, nan, stop_serving, twice
        prometheus.query("agent_errors_total")                  # freeze, thaw, stop, start, kill: as alertmanager
        alertmanager.silence({"alertname": "RollbackWatchdog"}, "quiet, please")

Annotations on the pod template: `sim/rps` requests per second (without it a pod has no metrics), `sim/errors` share of
bad ones (0), `sim/bad-absent: "true"` no series of errors before the first one. Every pod exposes its traffic twice:
as `agent_requests_total` and `agent_errors_total`, and as `http_requests_total{code="200"|"500"}`. Rows have the labels
namespace, pod, container (`app`), instance and job (`pods`; `again` for the second of `twice`).

`start` (and `with`) only in the main thread: the kernel ends a program with the thread that started it.
"""
