"""The pods themselves: what Prometheus would have scraped, for clusters without one.

targets     which address of a pod, and the labels that its series get
http        one pod asked within its limits: time, size, no redirect
exposition  what it answered, as sums of what the signals select
signals     the questions of the judge, from what this process has scraped
"""

from watchdog.scrape.exposition import Wanted, wanted
from watchdog.scrape.http import Get, connect
from watchdog.scrape.signals import PodSignals

__all__ = ["Get", "PodSignals", "Wanted", "connect", "wanted"]
