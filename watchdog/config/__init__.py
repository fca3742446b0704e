"""Configuration: TOML into frozen structs, with errors that name the place and the cure.

Every setting has a default; `config.example.toml` shows them all and a test holds it to this file. A command works
without any configuration file.

base        durations, and what every table has
policy      a policy, its signals and its rules
sections    the tables that stand once, and the whole
reading     from a file to the settings
checks      what the types do not say
"""

from watchdog.config.base import PauseDuration, Seconds, duration
from watchdog.config.policy import (
    AlertSettings,
    Conditions,
    Confirm,
    EvaluationSettings,
    GitOps,
    Policy,
    RuleName,
    Sensitivity,
    Sequential,
    Signal,
    Threshold,
)
from watchdog.config.reading import ENVIRONMENT, PLACES, find, load, parse
from watchdog.config.sections import (
    Access,
    Alertmanager,
    Config,
    Kubernetes,
    LimitSettings,
    Log,
    LogFormat,
    LogLevel,
    Prometheus,
    RecordKind,
    Records,
    Rollback,
    Scheme,
    Scrape,
    Server,
    Slack,
    Source,
)

__all__ = [
    "ENVIRONMENT",
    "PLACES",
    "Access",
    "AlertSettings",
    "Alertmanager",
    "Conditions",
    "Config",
    "Confirm",
    "EvaluationSettings",
    "GitOps",
    "Kubernetes",
    "LimitSettings",
    "Log",
    "LogFormat",
    "LogLevel",
    "PauseDuration",
    "Policy",
    "Prometheus",
    "RecordKind",
    "Records",
    "Rollback",
    "RuleName",
    "Scheme",
    "Scrape",
    "Seconds",
    "Sensitivity",
    "Sequential",
    "Server",
    "Signal",
    "Slack",
    "Source",
    "Threshold",
    "duration",
    "find",
    "load",
    "parse",
]
