"""The scenario family: moments in which somebody asks a character for more or less support than they can give.

The identity is the text: two rows with the same words are the same example, even if their numbers differ. All rows of a
scenario go to the same split, so an augmented row is in the split of its original. Rows are routed by the smallest hash
of their text's shingles: two texts of Jaccard similarity J share a partition with a probability of at least J.
"""

from __future__ import annotations

import polars as pl

from schema.family import Family, Parts
from schema.routing import smallest_shingle
from schema.scenario.columns import COLUMNS, flatten, nest
from schema.scenario.coverage import AXES, CELL_AXES, QUOTAS
from schema.scenario.rules import ANSWER_FAULTS, Scenario, derive

TEXT = pl.concat_str("context", "request", "response", separator="\n")

FAMILY = Family(
    name="scenario",
    version=1,
    columns=COLUMNS,
    rules=Scenario,
    # A row for an unusable model answer has no other columns, so other reasons would mean nothing.
    decisive=(*ANSWER_FAULTS, "answer_fault_unknown"),
    derive=derive,
    axes=AXES,
    cell_axes=CELL_AXES,
    cell_view="parameter_coverage",
    quotas=QUOTAS,
    identity=TEXT,
    group=pl.col("scenario_id"),
    route=smallest_shingle(TEXT),
    text=TEXT,
    response="response",
    response_label="authenticity_target",
    flatten=flatten,
    nest=nest,
    parts=Parts(
        producer="producers.scenario.run:ScenarioRun",
        filling="producers.scenario.filling:fill",
        augmentation="streams.augmentation.scenario:augment",
        tensor_form="consumers.scenario.form:FORM",
        commands={
            "produce scenario": "feedmill.scenario_commands:produce_scenario_command",
            "generate scenario": "feedmill.generate_command:generate_scenario_command",
            "train scenario": "feedmill.language_model_commands:train_scenario_command",
        },
        samples="tests.scenarios:valid_rows",
    ),
)
