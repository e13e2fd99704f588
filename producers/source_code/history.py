"""Documents of git histories: portions of commits as work units, and the evolutions of a portion as rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from producers.source_code.evolution import Evolution, EvolutionOptions, evolutions_of
from producers.source_code.exclusions import Exclusions
from producers.source_code.git_repository import Repository
from producers.source_code.sources import Origin
from producers.source_code.walking import WalkRules
from schema.source_code.columns import EVOLUTION

# Some megabytes of documents: a commit changes few files, and a document has both versions of its file.
_PORTION_COMMITS = 16
# The columns of a row together; a row has to fit in a record of a megabyte.
_ROW_LIMIT_BYTES = 900_000


@dataclass(frozen=True)
class Portion:
    """Some commits of a repository in the order of its history.

    Attributes:
        inside: only files below this folder count: "" or ending in "/".
        groups: {(commit, path): final group} of each change that gives a document.
    """

    origin: Origin
    inside: str
    commits: tuple[bytes, ...]
    groups: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)


def portions_of(origin: Origin, inside: str, counts: Counter[str]) -> list[Portion]:
    """Return the history of HEAD in portions; `counts` gets the commits that are left out, by reason.

    Raises:
        UsageError: the repository cannot be read.
    """
    with Repository(origin.top) as repository:
        history = repository.commits(EvolutionOptions().max_commits)
    counts.update(history.skipped)
    ids = tuple(history.ids)
    counts["commits"] += len(ids)
    return [Portion(origin, inside, ids[at : at + _PORTION_COMMITS]) for at in range(0, len(ids), _PORTION_COMMITS)]


def evolutions_in(portion: Portion, rules: WalkRules, counts: Counter[str]) -> Iterator[Evolution]:
    """Yield the evolutions of a portion that fit in a record; `counts` gets what is left out, by reason."""
    options = EvolutionOptions(skip=_skipping(rules.exclusions, portion.inside))
    with Repository(portion.origin.top) as repository:
        for evolution in evolutions_of(repository, portion.commits, options, counts):
            texts = (evolution.text, evolution.diff, evolution.before, evolution.after)
            if sum(len(text.encode()) for text in texts) > _ROW_LIMIT_BYTES:
                counts["change_too_large"] += 1
            else:
                yield evolution


def change_text(portion: Portion, commit: str, path: str, rules: WalkRules) -> str | None:
    """Return the text of one evolution of a portion, or None if the repository has it no longer."""
    only = replace(portion, commits=(commit.encode(),))
    return next((one.text for one in evolutions_in(only, rules, Counter()) if one.path == path), None)


def portion_documents(portion: Portion, rules: WalkRules, counts: Counter[str]) -> list[dict[str, Any]]:
    """Return the columns of the evolutions of a portion that no score is; `counts` gets what is left out or replaced.

    A change that the survey did not see has no group, so it is left out as `change_not_surveyed`.
    """
    documents = []
    for evolution in evolutions_in(portion, rules, counts):
        group = portion.groups.get((evolution.commit, evolution.path))
        if group is None:
            counts["change_not_surveyed"] += 1
            continue
        counts["evolutions"] += 1
        counts.update({f"scrubbed_{kind}": number for kind, number in evolution.scrubbed.items()})
        documents.append(_document(evolution, portion.origin, group))
    return documents


def _document(evolution: Evolution, origin: Origin, group: str) -> dict[str, Any]:
    return {
        "text": evolution.text,
        "language": evolution.language,
        "repository": origin.repository,
        "commit": evolution.commit,
        "path": evolution.path,
        "license": origin.license,
        "kind": EVOLUTION,
        "before": evolution.before,
        "after": evolution.after,
        "diff": evolution.diff,
        "message": evolution.message,
        "author_date": evolution.author_date,
        "group": group,
    }


def _skipping(exclusions: Exclusions, inside: str) -> Callable[[str], str | None]:
    def reason(path: str) -> str | None:
        if not path.startswith(inside):
            return "change_outside"
        found = exclusions.of_path(path[len(inside) :])
        return None if found is None else f"change_{found}"

    return reason
