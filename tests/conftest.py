"""What holds for every test."""

import asyncio

# looptime asks for the current event loop in every test, asynchronous or not. Once it is set to none, asyncio neither
# makes a loop that nobody closes (3.11) nor warns that it will stop doing so (3.12, 3.13).
asyncio.set_event_loop(None)

pytest_plugins = ["tests.monitoring.fixtures"]
