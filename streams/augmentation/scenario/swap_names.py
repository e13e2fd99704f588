"""A scenario's name, relation and setting, swapped for others of their kind wherever they stand in its texts."""

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
    """Return `rows` with name, relation and setting swapped, each where that is safe.

    A swap is left undone where the phrase is in none of the texts (the setting: not in the context), or in doubt in one
    (`phrases.replaced`); where a factor's name or a label of the calculation speaks of it, which are not rewritten;
    where the new phrase is in a text already; for a name, where the texts leave its gender open between two; for a
    relation, where the texts speak of kin or office in other words too, or with "a" or "an", which would have to agree;
    for a setting, where its kind is not known.
    """
    factors = pl.col("capacity_factors").list.eval(pl.element().struct.field("name")).list.join("\n")
    lines = pl.col("calculation_steps").list.join("\n")
    asides = rows.select(pl.concat_str(factors, lines, separator="\n")).to_series()
    made = rows
    for column, others in (
        ("character_name", _other_names(rows)),
        ("character_relation", _other_relations(rows)),
        ("setting", _other_settings(rows)),
    ):
        made = _swapped(made, column, others, asides)
    return made


def _swapped(rows: pl.DataFrame, column: str, swaps: pl.Series, asides: pl.Series) -> pl.DataFrame:
    """Return `rows` with `swaps` (null: leave as it is) for `column`, there and in the texts, where that is safe.

    It is not where `asides`, which are no prose to be rewritten, speak of it.
    """
    new = swaps.fill_null("")
    written, counts = zip(*(replaced(rows[text], rows[column], new) for text in TEXTS), strict=True)
    total = np.sum(counts, axis=0)
    sure = (np.min(counts, axis=0) >= 0) & (total > 0) & (replaced(asides, rows[column], new)[1] == 0)
    if column == "setting":
        sure &= counts[0] > 0
    if column == "character_relation":
        # Whom the texts call anything else by kin or office may be the character as well.
        own = rows[column].str.count_matches(KIN).to_numpy()
        said = sum(rows[text].str.count_matches(KIN).to_numpy().astype(np.int64) for text in TEXTS)
        sure &= said == total * own
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
    """Return another name for each row's character, null where none is safe."""
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
    told = np.select([hers & his, hers, his], [-1, WOMAN, MAN], EITHER)
    gender = relation.to_numpy()
    for otherwise in (known.to_numpy(), told):
        gender = np.where(gender == EITHER, otherwise, gender)
    at = rows["character_name"].replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int64).to_numpy()
    within = at - start[gender]
    listed = (at >= 0) & (within >= 0) & (within < size[gender])
    turn = draws.pick(rows, draws.NAME, size[gender] - listed)
    # From the one that it is, round to any but itself.
    place = np.where(listed, (within + 1 + turn) % size[gender], turn)
    return pl.Series(names).gather(start[gender] + place).set(pl.Series(gender < 0), None)


def _other_relations(rows: pl.DataFrame) -> pl.Series:
    """Return another relation that each row's character could have, null where there is none."""
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
    """Return another setting of the same kind for each row, null where its kind is not known."""
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
    # From the one that it is, round to any but itself.
    place = (here - starts[kind] + 1 + draws.pick(rows, draws.SETTING, sizes[kind] - 1)) % sizes[kind]
    return pl.Series(settings).gather(starts[kind] + place).set(at.is_null(), None)


@cache
def _name_pools() -> tuple[list[str], Array, Array]:
    """Return (names, start, size): those for gender g are names[start[g]:][:size[g]]; anyone's where none is given."""
    return (
        [*WOMEN, *MEN, *ANYONE],
        np.array([0, len(WOMEN), 0]),
        np.array([len(WOMEN), len(MEN), len(WOMEN) + len(MEN) + len(ANYONE)]),
    )


@cache
def _relation_pools() -> tuple[list[str], Array, Array]:
    """Return (others, start, size): those for relation r in age band b are others[start[i]:][:size[i]], i = 5 r + b."""
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
