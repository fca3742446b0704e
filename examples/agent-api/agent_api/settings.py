"""Every setting, from the environment: settings from a ConfigMap, secrets from a Secret."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self


class SettingsError(Exception):
    """A setting is missing or wrong; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service needs to know. The three secrets have no repr, so no log line can hold them.

    Args:
        api_key: of the LLM's API.
        redis_url: where sessions are kept.
        database_url: where transcripts are kept.
        base_url: of any OpenAI-compatible API; None is OpenAI's own.
        model: its name.
        log_level: a name that `logging` knows.
        max_tokens: that one completion may have.
        rate_limit: requests per minute that one pod takes.
        track: `stable` or `canary`, the label `deployment` of the metrics.
        namespace: the label of that name.
        host: to listen on.
        port: to listen on.
        llm_timeout_s: for one try of one completion.
        deadline_s: for one answer with all its completions and tools.
    """

    api_key: str = field(repr=False)
    redis_url: str = field(repr=False)
    database_url: str = field(repr=False)
    base_url: str | None = None
    model: str = "gpt-4o-mini"
    log_level: str = "INFO"
    max_tokens: int = 500
    rate_limit: int = 100
    track: str = "stable"
    namespace: str = "default"
    host: str = "0.0.0.0"  # noqa: S104  # a pod is reached by its address
    port: int = 8080
    llm_timeout_s: float = 10
    deadline_s: float = 30

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read the environment.

        Raises:
            SettingsError: one is missing, or is not what it should be.
        """
        level = environment.get("LOG_LEVEL", "INFO")
        if level not in logging.getLevelNamesMapping():
            raise SettingsError(f"LOG_LEVEL is {level!r}; it is one of DEBUG, INFO, WARNING, ERROR")
        return cls(
            api_key=_required(environment, "OPENAI_API_KEY"),
            redis_url=_required(environment, "REDIS_URL"),
            database_url=_required(environment, "DATABASE_URL"),
            base_url=environment.get("OPENAI_BASE_URL") or None,
            model=environment.get("MODEL_NAME", "gpt-4o-mini"),
            log_level=level,
            max_tokens=_count(environment, "MAX_TOKENS", 500),
            rate_limit=_count(environment, "RATE_LIMIT", 100),
            track=environment.get("DEPLOYMENT_TRACK", "stable"),
            namespace=environment.get("POD_NAMESPACE", "default"),
            host=environment.get("HOST", "0.0.0.0"),  # noqa: S104
            port=_count(environment, "PORT", 8080),
        )


def _required(environment: Mapping[str, str], name: str) -> str:
    if not (value := environment.get(name)):
        raise SettingsError(f"{name} is not set; in a cluster it comes from the Secret agent-api")
    return value


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise SettingsError(f"{name} is {text!r}; it is a whole number above 0")
    return int(text)
