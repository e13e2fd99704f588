"""The `feedmill` command line with the template family: `python -m tests.family_template worker addition`.

Like `feedmill.child_process`, it ends with its standard input.
"""

from __future__ import annotations

import sys

from feedmill.child_process import run
from schema.registry import FAMILIES
from tests.family_template.declaration import FAMILY

# Step 2 of the recipe. A real family has this line in schema/registry.py.
FAMILIES[FAMILY.name] = FAMILY

run(sys.argv[1:])
