"""What holds for every test."""

import asyncio

from hypothesis import settings

# looptime asks for the current event loop in every test, asynchronous or not. Once it is set to none, asyncio neither
# makes a loop that nobody closes (3.11) nor warns that it will stop doing so (3.12, 3.13).
asyncio.set_event_loop(None)

settings.register_profile("any-machine", deadline=None)  # a busy machine is no failure
settings.load_profile("any-machine")

pytest_plugins = ["tests.monitoring.fixtures"]
