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


def last_words(output: str, characters: int = 800) -> str:
    """Return what a failed program said after its stack trace, if it printed one."""
    lines = output.strip().splitlines()
    traced = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    start = traced[-1] + 1 if traced else 0
    words = [line for line in lines[start:] if not (traced and line.startswith("    "))]
    return "\n".join(words)[-characters:].strip()


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
