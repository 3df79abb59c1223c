from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qc_app.protocol.patterns import PatternInvalid, compile_pattern, matches

ATOMS = st.sampled_from(
    ["a", "b", "1", ".", "[ab]", "[^a]", "\\d", "\\D", "\\w", "\\W", "\\s", "[a-c1]", "\\b"]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{1,2}", "*?", "{2}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, st.text(alphabet="abAB1 ", max_size=6))
def test_agrees_with_python_on_the_whole_text(pattern, text):
    assert matches(pattern, text) == bool(re.fullmatch(pattern, text, re.IGNORECASE))


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("syngo MR E11.?", "SYNGO MR E11C", True),
        (".*mp-?rage.*", "Sag 3D MPRAGE", True),
        ("mprage", "Sag mprage", False),
        ("^V\\d$", "V1", True),
        ("", "", True),
    ],
)
def test_the_whole_text_is_matched_ignoring_case(pattern, text, expected):
    assert matches(pattern or "x?", text) is expected


def test_catastrophic_patterns_end():
    assert matches("(a+)+b", "a" * 256) is False
    assert matches("(a|aa)*b", "a" * 256) is False
    assert matches("((((a*)*)*)*)*b", "a" * 256) is False


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", "not a regular expression"),
        ("(?=a)", "look-around"),
        ("(?<!a)b", "look-around"),
        ("(a)\\1", "back-references"),
        ("(?i)a", "inline flags"),
        ("a" * 201, "at most 200"),
        ("(((){1000}){1000}){1000}", "repeats too much"),
        ("(a{50}){50}", "repeats too much"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(pattern, words):
    with pytest.raises(PatternInvalid, match=words):
        compile_pattern(pattern)


def test_a_text_that_is_too_long_is_refused():
    with pytest.raises(PatternInvalid, match="at most 256"):
        matches(".*", "a" * 257)
