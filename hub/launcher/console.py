"""What the launcher tells the person at the terminal."""

from __future__ import annotations

import sys


class LauncherError(Exception):
    """An expected failure; its text is one paragraph: what happened, where, and what to do."""


def say(line: str) -> None:
    """Print one line at once, also into a pipe."""
    print(line, flush=True)


def warn(line: str) -> None:
    """Print one warning on standard error."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


class Progress:
    """A counter for a step of many parts: rewritten in place on a terminal, every tenth part elsewhere."""

    def __init__(self, label: str, total: int) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self._live = sys.stdout.isatty()

    def advance(self, detail: str) -> None:
        """Count one part and show it."""
        self.done += 1
        text = f"  {self.label}: {min(self.done, self.total)} of {self.total} ({detail})"
        if self._live:
            sys.stdout.write(f"\r\033[K{text[:100]}")
            sys.stdout.flush()
        elif self.done % max(1, self.total // 10) == 0:
            say(text)

    def finish(self) -> None:
        """End the line of a terminal."""
        if self._live and self.done:
            sys.stdout.write("\n")
            sys.stdout.flush()
