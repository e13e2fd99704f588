"""A bound on the memory of a row filter: how many times larger than a row's values its results can become.

`hex(hex(...))`, nested 27 times, makes gigabytes of eight characters. DuckDB's memory limit does not count the vectors
of an expression, so a filter is refused by its syntax tree, before it runs. The bound of a part of the tree is:

- 1 for a column, a constant and a lambda's parameter;
- the sum over the arguments of a function that joins them (`||`, `concat`, `list_value`, `struct_pack` and the like);
- for `concat_ws`, the sum over the joined arguments, plus the separator's bound for each of them;
- twice the argument's for `hex` and for a cast, which may escape each character;
- the list's times the body's for a function that calls a lambda;
- the largest bound of its parts for anything else, because its result is about as small as one of them.
"""

from __future__ import annotations

from typing import Any

# Conditions that people write stay below 20.
MOST_GROWTH = 500

_JOINING = {"||", "concat", "list_value", "list_pack", "struct_pack", "row"}
_DOUBLING = {"hex", "to_hex"}


def growth(node: Any) -> int:
    """Return the bound of a node of DuckDB's serialized syntax tree.

    Raises:
        ValueError: a lambda is inside another, or names a column: the work and the memory would be a power of the
            list's length. The text names the reason.
    """
    if isinstance(node, list):
        return max(map(growth, node), default=1)
    if not isinstance(node, dict):
        return 1
    match node.get("class"):
        case "FUNCTION":
            return _function_growth(node)
        case "CAST":
            return 2 * growth(node["child"])
        case _:
            return max(map(growth, node.values()), default=1)


def _function_growth(node: dict[str, Any]) -> int:
    name, arguments = node["function_name"].lower(), [argument["expression"] for argument in node["arguments"]]
    lambdas = [argument for argument in arguments if argument["class"] == "LAMBDA"]
    for one in lambdas:
        _check_lambda(one)
    bounds = [growth(argument["expr"] if argument in lambdas else argument) for argument in arguments]
    if lambdas:
        result = 1
        for bound in bounds:
            result *= bound
        return result
    if name == "concat_ws" and bounds:
        return sum(bounds[1:]) + bounds[0] * len(bounds)
    if name in _JOINING:
        return sum(bounds)
    return max(bounds, default=1) * (2 if name in _DOUBLING else 1)


def _check_lambda(node: dict[str, Any]) -> None:
    """Check that a lambda's body names only its parameters and has no lambda inside; raises as `growth`."""
    own = {name[0].lower() for name in _columns(node["lhs"])}
    foreign = next((name for name in _columns(node["expr"]) if name[0].lower() not in own), None)
    if foreign is not None:
        raise ValueError(f"a lambda names {'.'.join(foreign)}, which is not its parameter")


def _columns(node: Any) -> list[list[str]]:
    """Return the column names in a tree; raises as `growth` if a lambda is in it."""
    if isinstance(node, list):
        return [name for one in node for name in _columns(one)]
    if not isinstance(node, dict):
        return []
    if node.get("class") == "LAMBDA":
        raise ValueError("a lambda is inside another")
    if node.get("class") == "COLUMN_REF":
        return [node["column_names"]]
    return [name for one in node.values() for name in _columns(one)]
