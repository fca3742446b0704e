"""Slack: where people are told, and the only place that imports its client library.

wording     what is said: one wording for each end, pure
notifier    how it gets there: once, whatever Slack does meanwhile
"""

from watchdog.slack.notifier import SlackNotifier

__all__ = ["SlackNotifier"]
