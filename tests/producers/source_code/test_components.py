"""Components of near duplicates, compared with exact similarities of all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.source_code import components
from producers.source_code.components import components_of, jaccard, sketch_documents
from producers.source_code.grouping import named_groups
from schema.family import split_of

# Words of a text whose pairs have a chosen similarity: 396 shingles of five words.
LENGTH = 400


def windows(text: str) -> set[tuple[str, ...]]:
    """The sets of five words, by the definition."""
    words = text.split()
    return {tuple(words[at : at + 5]) for at in range(max(len(words) - 4, 1))}


def similarity(left: str, right: str) -> float:
    one, other = windows(left), windows(right)
    return len(one & other) / len(one | other)


def plain_components(texts: list[str]) -> list[int]:
    """The smallest document that each one reaches over pairs of similarity 0.6 or more."""
    smallest = list(range(len(texts)))
    near = [(a, b) for a, b in combinations(range(len(texts)), 2) if similarity(texts[a], texts[b]) >= 0.6]
    for _ in texts:
        for a, b in near:
            smallest[a] = smallest[b] = min(smallest[a], smallest[b])
    return smallest


def variant(base: str, first: int, changed: int) -> str:
    """A text of 60 words of which `changed` in a row, from `first` on, are other words."""
    return " ".join(f"{'other' if first <= at < first + changed else base}{at}" for at in range(60))


def pairs(count: int, replaced: int, seed: int) -> tuple[list[str], float]:
    """2 * `count` texts; text i and text `count` + i differ in the last `replaced` words; and their similarity."""
    words = np.random.default_rng(seed).integers(0, 10**9, size=(count, LENGTH + replaced)).astype(str)
    left = [" ".join(row[:LENGTH]) for row in words]
    right = [" ".join([*row[: LENGTH - replaced], *row[LENGTH:]]) for row in words]
    return left + right, similarity(left[0], right[0])


def final_groups(texts: list[str], defaults: list[str], *, by_repository: bool) -> list[str]:
    found, _ = components_of(sketch_documents(pl.Series(texts, dtype=pl.String)), texts.__getitem__)
    return named_groups(found, pl.Series(defaults, dtype=pl.String), by_repository=by_repository).to_list()


def split(group: str) -> str:
    return str(pl.DataFrame({"group": [group]}).select(split_of("group")).item())


# A few texts only: sketches of all their pairs were seen to be right, and they are the same in every run.
documents = st.lists(
    st.builds(
        variant, st.sampled_from(["river", "stone"]), st.sampled_from([0, 20, 40]), st.sampled_from([0, 4, 8, 13])
    ),
    max_size=12,
)
default_groups = st.lists(st.sampled_from("abc"), min_size=12, max_size=12)


@given(documents)
def test_components_are_those_of_all_pairs_compared_exactly(texts: list[str]) -> None:
    found, _ = components_of(sketch_documents(pl.Series(texts, dtype=pl.String)), texts.__getitem__)
    assert found.tolist() == plain_components(texts)


@given(documents, st.booleans(), default_groups)
def test_groups_do_not_depend_on_the_order_of_documents(
    texts: list[str], by_repository: bool, named: list[str]
) -> None:
    def groups(order: list[int]) -> list[str]:
        chosen, defaults = [texts[at] for at in order], [named[at] for at in order]
        return final_groups(chosen, defaults, by_repository=by_repository)

    forwards, backwards = list(range(len(texts))), list(range(len(texts)))[::-1]
    assert groups(forwards) == groups(backwards)[::-1]


@pytest.mark.parametrize("replaced", [69, 40, 10])
def test_nearly_all_pairs_of_similarity_0_7_are_joined(replaced: int) -> None:
    texts, exact = pairs(1_500, replaced, seed=replaced)
    assert exact >= 0.7
    found, _ = components_of(sketch_documents(pl.Series(texts)), texts.__getitem__)
    assert (found[1_500:] == found[:1_500]).mean() > 0.998


def test_pairs_at_the_threshold_are_compared_exactly() -> None:
    texts, exact = pairs(1_500, 99, seed=9)
    assert exact == 0.6
    found, checked = components_of(sketch_documents(pl.Series(texts)), texts.__getitem__)
    assert (found[1_500:] == found[:1_500]).mean() > 0.97
    assert checked > 1_400


@pytest.mark.parametrize("replaced", [100, 130, 200])
def test_pairs_below_the_threshold_stay_apart(replaced: int) -> None:
    texts, exact = pairs(500, replaced, seed=replaced)
    assert exact < 0.6
    found, _ = components_of(sketch_documents(pl.Series(texts)), texts.__getitem__)
    # A pair whose estimate is far above the threshold is not read again.
    assert (found[500:] == found[:500]).mean() < 0.005


def test_a_chain_of_near_duplicates_is_one_component() -> None:
    texts = [variant("river", 0, changed) for changed in (0, 5, 10, 15, 20, 25)]
    assert similarity(texts[0], texts[-1]) < 0.5
    found, _ = components_of(sketch_documents(pl.Series(texts)), texts.__getitem__)
    assert found.tolist() == [0] * 6


def test_a_component_of_several_repositories_is_in_train() -> None:
    texts = [variant(base, 0, changed) for base in ("river", "stone", "cloud") for changed in (0, 2)]
    tests = [name for name in (f"repository{number}" for number in range(200)) if split(name) == "test"]
    defaults = [tests[1], tests[0], tests[1], tests[1], tests[2], tests[2]]
    groups = final_groups(texts, defaults, by_repository=True)
    assert groups[2:] == defaults[2:]
    assert groups[0] == groups[1]
    assert split(groups[0]) == "train"
    assert final_groups(texts, defaults, by_repository=False)[:2] == [min(tests[:2])] * 2


def test_a_component_of_files_has_one_split_that_is_not_always_train() -> None:
    texts = [variant(f"base{number}", 0, changed) for number in range(300) for changed in (0, 1)]
    groups = final_groups(texts, [f"pkg/{number}.py" for number in range(600)], by_repository=False)
    splits = pl.DataFrame({"group": groups}).select(split_of("group")).to_series()
    assert splits.gather_every(2).to_list() == splits.gather_every(2, 1).to_list()
    assert set(splits) == {"train", "val", "test"}


def test_documents_that_can_no_longer_be_read_are_joined() -> None:
    texts, _ = pairs(20, 105, seed=1)
    found, checked = components_of(sketch_documents(pl.Series(texts)), lambda _: None)
    assert checked > 0
    assert (found[20:] == found[:20]).sum() == checked


@pytest.mark.parametrize(("replaced", "least", "most"), [(69, 0.99, 1), (99, 0.4, 0.6), (130, 0, 0.05)])
def test_unsure_pairs_beyond_the_limit_are_judged_by_their_sketches(
    replaced: int, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components, "_MOST_CHECKED", 5)
    texts, _ = pairs(1_000, replaced, seed=2)
    found, checked = components_of(sketch_documents(pl.Series(texts)), texts.__getitem__)
    assert checked <= 5
    assert least <= (found[1_000:] == found[:1_000]).mean() <= most


def test_texts_are_read_again_once_if_the_cache_has_room_and_more_often_if_not(monkeypatch: pytest.MonkeyPatch) -> None:
    # Around one text, 30 of a similarity just below the threshold.
    words = [f"word{number}" for number in range(LENGTH)]
    texts = [" ".join(words)] + [" ".join([*words[:295], *(f"{n}x{at}" for at in range(105))]) for n in range(30)]
    sketches = sketch_documents(pl.Series(texts))
    reads: list[int] = []

    def read(number: int) -> str:
        reads.append(number)
        return texts[number]

    whole, _ = components_of(sketches, read)
    assert len(reads) == len(set(reads))
    reads.clear()
    monkeypatch.setattr(components, "_CACHED_HASHES", 1)
    bounded, _ = components_of(sketches, read)
    assert len(reads) > len(set(reads))
    assert bounded.tolist() == whole.tolist()


def test_many_equal_documents_take_no_comparison() -> None:
    texts = ["fn main() { println!(); } // nothing else here"] * 5_000
    found, checked = components_of(sketch_documents(pl.Series(texts)), texts.__getitem__)
    assert not found.any()
    assert checked == 0


def test_no_documents_have_no_groups() -> None:
    assert final_groups([], [], by_repository=True) == []


@given(st.sets(st.integers(0, 50)), st.sets(st.integers(0, 50)))
def test_similarity_of_sorted_hashes_is_that_of_their_sets(left: set[int], right: set[int]) -> None:
    one, other = (np.array(sorted(values), dtype=np.uint64) for values in (left, right))
    assert jaccard(one, other) == pytest.approx(len(left & right) / len(left | right) if left | right else 1.0)
