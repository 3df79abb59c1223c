"""Regular expressions from protocols, run in time proportional to pattern times text.

Python's `re` backtracks: a pattern such as (a+)+b takes exponential time, and a protocol is input. The
pattern is therefore read by Python's own parser and run as a set of states (Thompson, CACM 11:419, 1968,
doi:10.1145/363347.363387), which needs no backtracking. What such a machine cannot do is refused:
look-around, back-references, possessive and atomic groups.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any

MAX_PATTERN_CHARACTERS = 200
MAX_TEXT_CHARACTERS = 256
MAX_STATES = 1000
MAX_STEPS = 20_000


class PatternInvalid(ValueError):
    """The pattern cannot be used; the message says why and what to do."""


def matches(pattern: str, text: str) -> bool:
    """Tell whether the whole text matches the pattern, ignoring case.

    Raises PatternInvalid for a pattern that cannot be used or a text beyond MAX_TEXT_CHARACTERS.
    """
    if len(text) > MAX_TEXT_CHARACTERS:
        raise PatternInvalid(
            f"the text has {len(text)} characters; at most {MAX_TEXT_CHARACTERS} are compared"
        )
    return compile_pattern(pattern).matches(text)


@lru_cache(maxsize=512)
def compile_pattern(pattern: str) -> Machine:
    """Return the machine for a pattern. Raises PatternInvalid with a sentence that says what to do."""
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise PatternInvalid(
            f"the pattern has {len(pattern)} characters; write one of at most {MAX_PATTERN_CHARACTERS}"
        )
    try:
        tree = sre_parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternInvalid(f"the pattern is not a regular expression: {error}; correct it") from error
    if tree.state.flags & ~re.UNICODE:
        raise PatternInvalid("inline flags such as (?i) are not used; case is ignored anyway, remove them")
    machine = Machine()
    machine.start = _Builder(machine).sequence(tree, machine.accept)
    return machine


CharacterTest = Callable[[str], bool]
PlaceTest = Callable[[str, int], bool]


@dataclass(slots=True)
class Machine:
    """States by number: one that reads a character, or one that goes on without reading."""

    readers: dict[int, tuple[CharacterTest, int]] = field(default_factory=dict)
    jumps: dict[int, tuple[int, ...]] = field(default_factory=dict)
    places: dict[int, tuple[PlaceTest, int]] = field(default_factory=dict)
    size: int = 1
    accept: int = 0
    start: int = 0

    def matches(self, text: str) -> bool:
        states = self._closure({self.start}, text, 0)
        for index, character in enumerate(text):
            forms = {character, character.lower(), character.upper()}
            reached = set()
            for state in states & self.readers.keys():
                test, target = self.readers[state]
                if any(test(form) for form in forms):
                    reached.add(target)
            states = self._closure(reached, text, index + 1)
        return self.accept in states

    def _closure(self, states: set[int], text: str, index: int) -> set[int]:
        seen: set[int] = set()
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if state in seen:
                continue
            seen.add(state)
            waiting.extend(self.jumps.get(state, ()))
            if state in self.places:
                test, target = self.places[state]
                if test(text, index):
                    waiting.append(target)
        return seen


class _Builder:
    """Builds the machine backwards: each part is given the state that follows it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.steps = 0

    def sequence(self, nodes: Any, following: int) -> int:
        for operation, argument in reversed(list(nodes)):
            following = self.node(operation, argument, following)
        return following

    def node(self, operation: Any, argument: Any, following: int) -> int:
        self._step()
        if operation in _CHARACTERS:
            return self._reader(_CHARACTERS[operation](argument), following)
        if operation is sre.BRANCH:
            return self._jump(*(self.sequence(branch, following) for branch in argument[1]))
        if operation is sre.SUBPATTERN:
            _, added, removed, inner = argument
            if added or removed:
                raise PatternInvalid("inline flags such as (?i:...) are not used; remove them")
            return self.sequence(inner, following)
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            low, high, body = argument
            return self._repeat(low, high, body, following)
        if operation is sre.AT and argument in _PLACES:
            return self._place(_PLACES[argument], following)
        raise PatternInvalid(
            "look-around, back-references, atomic and possessive groups are not used here; write the pattern "
            'without them (a matching condition can be negated with "negate": true)'
        )

    def _repeat(self, low: int, high: Any, body: Any, following: int) -> int:
        if high is sre.MAXREPEAT:
            loop = self._new()
            self.machine.jumps[loop] = (self.sequence(body, loop), following)
            start = loop
        else:
            start = following
            for _ in range(high - low):
                self._step()
                start = self._jump(self.sequence(body, start), following)
        for _ in range(low):
            self._step()
            start = self.sequence(body, start)
        return start

    def _step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS or self.machine.size >= MAX_STATES:
            raise PatternInvalid("the pattern repeats too much; use smaller repeat counts")

    def _new(self) -> int:
        self._step()
        self.machine.size += 1
        return self.machine.size - 1

    def _jump(self, *targets: int) -> int:
        state = self._new()
        self.machine.jumps[state] = targets
        return state

    def _reader(self, test: CharacterTest, following: int) -> int:
        state = self._new()
        self.machine.readers[state] = (test, following)
        return state

    def _place(self, test: PlaceTest, following: int) -> int:
        state = self._new()
        self.machine.places[state] = (test, following)
        return state


def _literal(code: int) -> CharacterTest:
    wanted = chr(code)
    forms = frozenset({wanted, wanted.lower(), wanted.upper()})
    return lambda character: character in forms


def _not_literal(code: int) -> CharacterTest:
    inside = _literal(code)
    return lambda character: not inside(character)


def _one_of(parts: Any) -> CharacterTest:
    negated = parts[0][0] is sre.NEGATE
    tests = [_class_part(operation, argument) for operation, argument in parts[int(negated) :]]

    def test(character: str) -> bool:
        forms = {character, character.lower(), character.upper()}
        return any(part(form) for part in tests for form in forms) != negated

    return test


def _class_part(operation: Any, argument: Any) -> CharacterTest:
    if operation is sre.RANGE:
        low, high = argument
        return lambda character: len(character) == 1 and low <= ord(character) <= high
    if operation is sre.CATEGORY:
        return _CATEGORIES[argument]
    return _literal(argument)


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _boundary(text: str, index: int) -> bool:
    before = index > 0 and _is_word(text[index - 1])
    after = index < len(text) and _is_word(text[index])
    return before != after


_CATEGORIES: dict[Any, CharacterTest] = {
    sre.CATEGORY_DIGIT: str.isdecimal,
    sre.CATEGORY_NOT_DIGIT: lambda character: not character.isdecimal(),
    sre.CATEGORY_SPACE: str.isspace,
    sre.CATEGORY_NOT_SPACE: lambda character: not character.isspace(),
    sre.CATEGORY_WORD: _is_word,
    sre.CATEGORY_NOT_WORD: lambda character: not _is_word(character),
}

_CHARACTERS: dict[Any, Callable[[Any], CharacterTest]] = {
    sre.LITERAL: _literal,
    sre.NOT_LITERAL: _not_literal,
    sre.IN: _one_of,
    sre.ANY: lambda _: lambda character: character != "\n",
}

_PLACES: dict[Any, PlaceTest] = {
    sre.AT_BEGINNING: lambda _, index: index == 0,
    sre.AT_BEGINNING_STRING: lambda _, index: index == 0,
    sre.AT_END: lambda text, index: index == len(text),
    sre.AT_END_STRING: lambda text, index: index == len(text),
    sre.AT_BOUNDARY: _boundary,
    sre.AT_NON_BOUNDARY: lambda text, index: not _boundary(text, index),
}
