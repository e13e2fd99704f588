"""The code family: documents, i.e. source files, augmentations of source files, and changes from git histories.

The identity is the text: two files with the same text are the same example. Documents are routed by the smallest hash
of their shingles of five words: two texts of Jaccard similarity J share a partition with a probability of at least J.
The producer sets the group, which decides the split: a repository, a file, or a component of near duplicates.
"""

from __future__ import annotations

import polars as pl

from schema.family import Family, Parts
from schema.routing import smallest_shingle
from schema.source_code.columns import COLUMNS
from schema.source_code.coverage import AXES, CELL_AXES, QUOTAS, cell_possible
from schema.source_code.filters import filters
from schema.source_code.rules import SourceCode, derive

# The contract gives 5-grams for the near duplicates of code.
SHINGLE_WORDS = 5
TEXT = pl.col("text")

FAMILY = Family(
    name="code",
    version=1,
    columns=COLUMNS,
    rules=SourceCode,
    filters=filters,
    derive=derive,
    axes=AXES,
    cell_axes=CELL_AXES,
    cell_possible=cell_possible,
    quotas=QUOTAS,
    identity=TEXT,
    group=pl.col("group"),
    route=smallest_shingle(TEXT, SHINGLE_WORDS),
    text=TEXT,
    shingle_words=SHINGLE_WORDS,
    near_duplicate_threshold=0.7,
    parts=Parts(
        producer="producers.source_code.run:CodeRun",
        augmentation="streams.augmentation.source_code:augment",
        tensor_form="consumers.source_code.form:code_form",
        commands={
            "produce code": "feedmill.source_code_commands:produce_code_command",
            "generate code": "feedmill.generate_command:generate_code_command",
            "train code": "feedmill.language_model_commands:train_code_command",
            "eval rust": "feedmill.code_evaluation_commands:eval_rust_command",
            "eval python": "feedmill.code_evaluation_commands:eval_python_command",
        },
        samples="tests.source_code:valid_rows",
    ),
)
