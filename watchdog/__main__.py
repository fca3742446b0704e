"""``python -m watchdog``: the same program as the command ``rollback-watchdog``."""

from watchdog.cli import main

if __name__ == "__main__":
    main()
