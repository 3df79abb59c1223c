"""Canonical JSON: one value, one text, one digest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.canonical import canonical_json, digest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(JSON)
def test_the_order_of_keys_does_not_matter(value):
    turned = dict(reversed(list(value.items()))) if isinstance(value, dict) else value

    assert digest(value) == digest(turned)


def test_known_digest():
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'.encode()


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": float("-inf")}])
def test_not_a_number_is_refused(value):
    with pytest.raises(ValueError, match="NaN or infinity"):
        canonical_json(value)
