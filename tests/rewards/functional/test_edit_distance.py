"""Edit distances against a definition by recursion, and words in any order."""

from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.rewards.functional.edit_distance import edit_distance, text_similarity, words_similarity

SHORT = st.text(alphabet="abc", max_size=7)


@given(SHORT, SHORT)
def test_the_distance_is_that_of_its_definition(first: str, second: str) -> None:
    @lru_cache(None)
    def apart(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(apart(i - 1, j) + 1, apart(i, j - 1) + 1, apart(i - 1, j - 1) + (first[i - 1] != second[j - 1]))

    assert edit_distance(first, second) == apart(len(first), len(second)) == edit_distance(second, first)


def test_similarities_by_hand() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert text_similarity("kitten", "sitting") == pytest.approx(4 / 7)
    assert text_similarity("", "") == words_similarity([], []) == 1
    assert text_similarity("", "a") == words_similarity([], ["a"]) == 0
    assert words_similarity(["open", "daily"], ["daily", "open"]) == 1
    assert words_similarity(["open", "daily"], ["daily", "open", "x"]) == pytest.approx(9 / 10)
    assert words_similarity(["open", "daily"], ["dayly"]) == pytest.approx(4 / 9)
