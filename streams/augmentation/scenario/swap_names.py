"""Swap a scenario's name, relation and setting for others of the same kind, in its columns and in its texts."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from schema.scenario.columns import AGE_BANDS
from schema.scenario.vocabulary import EITHER, MAN, MEN, WOMAN, WOMEN
from streams.augmentation.scenario import draws
from streams.augmentation.scenario.phrases import replaced
from streams.augmentation.scenario.vocabulary import ANYONE, HERS, HIS, KIN, RELATIONS, SETTINGS

Array = npt.NDArray[Any]

TEXTS = ("context", "request", "response")


def swapped(rows: pl.DataFrame) -> pl.DataFrame:
    """Return `rows` with name, relation and setting swapped, each only if that is safe.

    A phrase is kept if

    - it is in none of the texts (the setting: not in the context), or `UNSURE` in one (`phrases.replaced`);
    - a factor's name or a label of the calculation contains it, because these are not rewritten;
    - the new phrase is already in a text;
    - it is a name, and the texts leave its gender open;
    - it is a relation, and the texts also name kin or office in other words, or put "a" or "an" before it;
    - it is a setting of unknown kind.
    """
    factors = pl.col("capacity_factors").list.eval(pl.element().struct.field("name")).list.join("\n")
    lines = pl.col("calculation_steps").list.join("\n")
    asides = rows.select(pl.concat_str(factors, lines, separator="\n")).to_series()
    swapped_rows = rows
    for column, others in (
        ("character_name", _other_names(rows)),
        ("character_relation", _other_relations(rows)),
        ("setting", _other_settings(rows)),
    ):
        swapped_rows = _swapped(swapped_rows, column, others, asides)
    return swapped_rows


def _swapped(rows: pl.DataFrame, column: str, swaps: pl.Series, asides: pl.Series) -> pl.DataFrame:
    """Return `rows` with `column` replaced by `swaps` (null: keep), in the column and in the texts, if that is safe.

    It is not safe if the row's `asides`, which are not rewritten, contain the phrase.
    """
    new = swaps.fill_null("")
    written, counts = zip(*(replaced(rows[text], rows[column], new) for text in TEXTS), strict=True)
    total = np.sum(counts, axis=0)
    sure = (np.min(counts, axis=0) >= 0) & (total > 0) & (replaced(asides, rows[column], new)[1] == 0)
    if column == "setting":
        sure &= counts[0] > 0
    if column == "character_relation":
        # A person whom the texts name by another word of kin or office may be the character.
        own = rows[column].str.count_matches(KIN).to_numpy()
        kin_words = sum(rows[text].str.count_matches(KIN).to_numpy().astype(np.int64) for text in TEXTS)
        sure &= kin_words == total * own
    there = pl.lit(new.str.to_lowercase())
    taken = rows.select(
        pl.any_horizontal(pl.col(text).str.to_lowercase().str.contains(there, literal=True) for text in TEXTS)
    ).to_series()
    swap = pl.Series(sure) & ~taken & swaps.is_not_null()
    return rows.with_columns(
        series.zip_with(swap, rows[series.name])
        for series in (new.alias(column), *(text.alias(name) for text, name in zip(written, TEXTS, strict=True)))
    )


def _other_names(rows: pl.DataFrame) -> pl.Series:
    """Return another name for each row's character; null if no name is safe."""
    names, start, size = _name_pools()
    relation = rows["character_relation"].replace_strict(
        [relation.name for relation in RELATIONS],
        [relation.gender for relation in RELATIONS],
        default=EITHER,
        return_dtype=pl.Int64,
    )
    known = rows["character_name"].replace_strict(
        [*WOMEN, *MEN], [WOMAN] * len(WOMEN) + [MAN] * len(MEN), default=EITHER, return_dtype=pl.Int64
    )
    hers, his = (
        rows.select(pl.any_horizontal(pl.col(text).str.contains(pattern) for text in TEXTS)).to_series().to_numpy()
        for pattern in (HERS, HIS)
    )
    by_pronouns = np.select([hers & his, hers, his], [-1, WOMAN, MAN], EITHER)
    gender = relation.to_numpy()
    for otherwise in (known.to_numpy(), by_pronouns):
        gender = np.where(gender == EITHER, otherwise, gender)
    at = rows["character_name"].replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int64).to_numpy()
    within = at - start[gender]
    listed = (at >= 0) & (within >= 0) & (within < size[gender])
    turn = draws.pick(rows, draws.NAME, size[gender] - listed)
    # Start after the present one and go round, so it is never chosen itself.
    place = np.where(listed, (within + 1 + turn) % size[gender], turn)
    return pl.Series(names).gather(start[gender] + place).set(pl.Series(gender < 0), None)


def _other_relations(rows: pl.DataFrame) -> pl.Series:
    """Return another relation that each row's character could have; null if none fits."""
    others, start, size = _relation_pools()
    at = rows["character_relation"].replace_strict(
        [relation.name for relation in RELATIONS], range(len(RELATIONS)), default=None, return_dtype=pl.Int64
    )
    band = rows["character_age_band"].replace_strict(AGE_BANDS, range(len(AGE_BANDS)), return_dtype=pl.Int64)
    # "a neighbour" cannot become "a uncle".
    article = rows.select(
        pl.any_horizontal(
            pl.col(text)
            .str.to_lowercase()
            .str.contains(pl.concat_str(pl.lit(article), pl.col("character_relation").str.to_lowercase()), literal=True)
            for text in TEXTS
            for article in (" a ", " an ")
        )
    ).to_series()
    pool = at.fill_null(0).to_numpy() * len(AGE_BANDS) + band.to_numpy()
    place = draws.pick(rows, draws.RELATION, np.maximum(size[pool], 1))
    chosen = pl.Series(others).gather(np.minimum(start[pool] + place, len(others) - 1))
    return chosen.set(at.is_null() | pl.Series(size[pool] == 0) | article, None)


def _other_settings(rows: pl.DataFrame) -> pl.Series:
    """Return another setting of the same kind for each row; null if its kind is not known."""
    settings = [setting for kind in SETTINGS for setting in kind]
    kinds = np.repeat(np.arange(len(SETTINGS)), [len(kind) for kind in SETTINGS])
    sizes = np.array([len(kind) for kind in SETTINGS])
    starts = np.cumsum(sizes) - sizes
    at = (
        rows["setting"]
        .str.to_lowercase()
        .replace_strict(settings, range(len(settings)), default=None, return_dtype=pl.Int64)
    )
    here = at.fill_null(0).to_numpy()
    kind = kinds[here]
    # Start after the present one and go round, so it is never chosen itself.
    place = (here - starts[kind] + 1 + draws.pick(rows, draws.SETTING, sizes[kind] - 1)) % sizes[kind]
    return pl.Series(settings).gather(starts[kind] + place).set(at.is_null(), None)


@cache
def _name_pools() -> tuple[list[str], Array, Array]:
    """Return (names, start, size): the names for gender g are names[start[g]:][:size[g]]; `EITHER` gets all names."""
    return (
        [*WOMEN, *MEN, *ANYONE],
        np.array([0, len(WOMEN), 0]),
        np.array([len(WOMEN), len(MEN), len(WOMEN) + len(MEN) + len(ANYONE)]),
    )


@cache
def _relation_pools() -> tuple[list[str], Array, Array]:
    """Return (others, start, size): relation r in age band b may become others[start[i]:][:size[i]], i = 5 r + b."""
    pools = [
        [
            other.name
            for other in RELATIONS
            if other.circle == relation.circle
            and other.name != relation.name
            and (other.gender == EITHER or other.gender == relation.gender)
            and band in other.age_bands
        ]
        for relation in RELATIONS
        for band in AGE_BANDS
    ]
    sizes = np.array([len(pool) for pool in pools])
    return [name for pool in pools for name in pool], np.cumsum(sizes) - sizes, sizes
