"""Settings from the environment."""

import pytest

from agent_api.settings import Settings, SettingsError

SECRETS = {
    "OPENAI_API_KEY": "sk-secret",
    "REDIS_URL": "redis://:hidden@redis:6379/0",
    "DATABASE_URL": "postgresql://agent:hidden@db/agent",
}


def test_everything_but_the_secrets_has_a_default() -> None:
    settings = Settings.read(SECRETS)
    assert (settings.model, settings.max_tokens, settings.rate_limit) == ("gpt-4o-mini", 500, 100)
    assert (settings.track, settings.base_url) == ("stable", None)


def test_the_environment_sets_model_limits_and_track() -> None:
    more = {"MODEL_NAME": "gpt-4o", "LOG_LEVEL": "WARNING", "MAX_TOKENS": "2000", "RATE_LIMIT": "1000"}
    settings = Settings.read({**SECRETS, **more, "DEPLOYMENT_TRACK": "canary", "OPENAI_BASE_URL": "http://llm/v1"})
    assert (settings.model, settings.log_level) == ("gpt-4o", "WARNING")
    assert (settings.max_tokens, settings.rate_limit) == (2000, 1000)
    assert (settings.track, settings.base_url) == ("canary", "http://llm/v1")


@pytest.mark.parametrize("name", SECRETS)
def test_a_missing_secret_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.read({key: value for key, value in SECRETS.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"), [("MAX_TOKENS", "0"), ("MAX_TOKENS", "many"), ("RATE_LIMIT", "-1"), ("LOG_LEVEL", "LOUD")]
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.read({**SECRETS, name: value})


def test_no_secret_is_shown() -> None:
    shown = repr(Settings.read(SECRETS))
    assert "secret" not in shown
    assert "hidden" not in shown
