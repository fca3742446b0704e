"""Where people are told: one file for each channel, and one row for each here.

wording     what is said: one wording for each end, for every channel; pure
slack       how it gets to Slack: once, whatever Slack does meanwhile
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from watchdog.config import Config
from watchdog.metrics import Channel
from watchdog.ports import Notifier


class ChannelClient(Notifier, Protocol):
    """A channel that is configured."""

    async def check(self) -> str:
        """Say who we are there; raises `NotificationError` where messages would not arrive."""

    async def close(self) -> None:
        """Close its connections."""


def _slack(config: Config) -> ChannelClient | None:
    if not config.slack.channel:
        return None
    from watchdog.notify.slack import SlackNotifier

    return SlackNotifier(config.slack, approval_s=config.limits.approval)


CHANNELS: Mapping[Channel, Callable[[Config], ChannelClient | None]] = {Channel.SLACK: _slack}
"""How each channel is made from the configuration; None where it is not configured."""
