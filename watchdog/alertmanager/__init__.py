"""Alertmanager: what its webhook says, and what its peers say when they are asked."""

from watchdog.alertmanager.client import Alertmanagers, Send, http_peers
from watchdog.alertmanager.payload import read_webhook

__all__ = ["Alertmanagers", "Send", "http_peers", "read_webhook"]
