"""Secrets and e-mail addresses are replaced in texts, before any of them leaves the producer.

1. Passages that hold a cue of a detector are found: a passage is a line, or 1,000 bytes of a longer line.
2. The detectors run on these passages only. They are the regular expressions of detect-secrets for keys of known form,
   its keyword detector with a stricter rule for values, and a few forms that it lacks. Nothing is verified over the
   network, and nothing is written to a file. High-entropy strings and IP addresses are left, because test vectors and
   hashes are mostly such strings.
3. Each secret becomes `SCRUBBED_SECRET` and each e-mail address `email@example.com`, wherever it is in the texts that
   are given together. Both are also valid as code, and no line is added or removed, so a file that parses still does.
4. This is repeated until nothing is found, so a second call changes nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from detect_secrets.filters.heuristic import is_potential_uuid, is_sequential_string
from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.keyword import QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP

from producers.source_code.secret_forms import DETECTORS, UNQUOTED, Detector

SECRET = "SCRUBBED_SECRET"  # noqa: S105  # the replacement of secrets
EMAIL = "email@example.com"

_PASSAGE_BYTES = 1000
_OVERLAP_BYTES = 300
_MOST_ROUNDS = 5
# Shorter values are words that also occur for other reasons.
_SHORTEST_VALUE = 12


class _Place(NamedTuple):
    """A secret or an address at characters begin..end of a text."""

    begin: int
    end: int
    kind: str


_KEYWORD_CUES = ("key", "pwd", "pass", "secret", "contrase")
# A quoted value that the rule for values could accept; most lines with a keyword have none.
_KEYWORD_VALUE = re.compile(r"[\"'`][!-~]*[0-9][!-~]*[\"'`]")
_VALUE = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9+/=_.~!@#^&*:-]{8,200}")
_LEAST_ENTROPY = 3.0
# Characters in which a secret of a known form ends.
_TOKEN_END = re.compile(r"[A-Za-z0-9_-]*")
_JWT_END = re.compile(r"[A-Za-z0-9_=.-]*")
_NO_TOKEN = re.compile(r"[\s\"'`\\(){}<>,;|]")
_ESCAPE_LETTERS = {"x": 3, "u": 5, "U": 9}

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d")
_PRIVATE_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|Private-MAC:")
_LONGEST_PRIVATE_KEY = 16_384
_UNENDED_PRIVATE_KEY = 4_096
_KEY_LINE = re.compile(r"(?<![A-Za-z0-9+/=])(?=[A-Za-z+/]*[0-9])[A-Za-z0-9+/=]{24,}")
_KEY_LAST_LINE = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/=]{1,23}(?=(?:\\[nr]|[\s\"'+,;\\]){0,40}\Z)")

_DOMAIN = re.compile(r"@((?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,8}[A-Za-z]{2,18})(?![\w(\[-]|\.\w)")
_LOCAL = re.compile(r"(?<![\w%+.$-])\w[\w.%+-]{0,63}\Z")
_LONGEST_LOCAL = 65
_NOT_PEOPLE = frozenset({"git", "hg", "svn", "this", "super", "return", "self", SECRET})
_RESERVED_DOMAIN = re.compile(r"(?i)(?:.*\.)?example\.(?:com|org|net|edu)")
# Top-level domains, besides those of two letters; other words after a dot are attributes.
_TOP_LEVEL = re.compile(
    r"(?:[a-z]{2}|com|net|org|edu|gov|mil|int|info|biz|name|pro|dev|app|tech|cloud|online|site|email|page|xyz|club|blog|art"
    r"|design|studio|agency|digital|company|solutions|systems|software|academy|foundation|institute|university|school)"
)
# So many values are looked for in the whole of the texts; it bounds the time for a file made of addresses.
_MOST_VALUES = 1_000
_ENTROPY = Base64HighEntropyString()


def scrubbed(text: str) -> tuple[str, Counter[str]]:
    """Return a text without secrets and e-mail addresses, and the number of places by kind.

    >>> scrubbed("# mail alice@corp.io\\ntoken = 'ghp_" + "a1" * 18 + "'")
    ("# mail email@example.com\\ntoken = 'SCRUBBED_SECRET'", Counter({'email': 1, 'github': 1}))
    """
    (result,), counts = scrubbed_together([text])
    return result, counts


def has_secret_name(path: str) -> bool:
    """Return whether a path holds a secret or an e-mail address; its extension is no top-level domain.

    >>> has_secret_name("notes/alice@corp.io.py"), has_secret_name("routes/layout@admin.ts")
    (True, False)
    """
    folder, slash, name = path.rpartition("/")
    return bool(scrubbed(f"{folder}{slash}{name.rpartition('.')[0] or name}")[1])


def scrubbed_together(texts: Sequence[str]) -> tuple[list[str], Counter[str]]:
    """Return texts without secrets and addresses: what is found in one of them is replaced in all.

    Lines are neither added nor removed. A second call changes nothing.
    """
    counts: Counter[str] = Counter()
    current = list(texts)
    for _ in range(_MOST_ROUNDS):
        places = [_places(text) for text in current]
        if not any(places):
            break
        values = _values(current, places)
        replaced = [_replaced(text, found, values, counts) for text, found in zip(current, places, strict=True)]
        if replaced == current:
            break
        current = replaced
    return current, counts


def _places(text: str) -> list[_Place]:
    """Return the places of a text without overlaps, in order."""
    # The case of other letters is kept, because their lower case can be of another length.
    lower = text.lower() if text.isascii() else _ascii_lower(text)
    values = [*_keyword_values(text, lower), *_unquoted_values(text, lower)]
    found = [*_private_keys(text, lower), *_known_forms(text, lower), *values, *_addresses(text)]
    # The password of an address with one, as in ftp://user:password@host.com, is no local part of an e-mail address.
    found.sort(key=lambda place: (place.begin, place.kind == "email", -place.end, place.kind))
    kept: list[_Place] = []
    for place in found:
        if not kept or place.begin >= kept[-1].end:
            kept.append(place)
    return kept


def _ascii_lower(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _known_forms(text: str, lower: str) -> Iterator[_Place]:
    for detector in DETECTORS:
        for begin, end in _passages(text, lower, detector):
            passage = text[begin:end]
            for pattern in detector.patterns:
                for match in pattern.finditer(passage):
                    yield from _as_place(text, begin, passage, match, detector.kind)


def _passages(text: str, lower: str, detector: Detector) -> Iterator[tuple[int, int]]:
    """Yield the parts of a text in which a detector can find something."""
    if detector.probe is not None:
        yield from sorted({_passage(text, match.start())[:2] for match in detector.probe.finditer(text)})
        return
    yield from _cued(text, lower, detector.cues)


def _cued(text: str, lower: str, cues: Iterable[str]) -> Iterator[tuple[int, int]]:
    found = set[tuple[int, int]]()
    for cue in cues:
        at = lower.find(cue)
        while at >= 0:
            begin, end, following = _passage(text, at)
            found.add((begin, end))
            at = lower.find(cue, following)
    yield from sorted(found)


def _passage(text: str, at: int) -> tuple[int, int, int]:
    """Return the passage around a character, and where the next passage begins."""
    begin = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    if end - begin <= _PASSAGE_BYTES:
        return begin, end, end
    following = min(begin + ((at - begin) // _PASSAGE_BYTES + 1) * _PASSAGE_BYTES, end)
    start = max(begin, following - _PASSAGE_BYTES - _OVERLAP_BYTES)
    return start, min(following + _OVERLAP_BYTES, end), following


def _as_place(text: str, offset: int, passage: str, match: re.Match[str], kind: str) -> Iterator[_Place]:
    """Yield the place of the secret in a match: its longest group, or all of it, up to the end of the token."""
    groups = sorted(
        (match.span(number) for number in range(1, match.re.groups + 1)), key=lambda span: span[0] - span[1]
    )
    begin, end = match.span()
    if groups and (groups[0][1] - groups[0][0] >= 8 or kind == "basic_auth"):
        begin, end = groups[0]
    else:
        bare = match[0].lstrip(" \t=:\"'")
        begin = end - len(bare)
        if kind == "azure":
            begin += len("AccountKey=")
        elif begin and (passage[begin - 1].isalnum() or passage[begin - 1] == "_") and not _escaped(passage, begin - 1):
            return
        if kind == "jwt" and not JwtTokenDetector.is_formally_valid(match[0]):
            return
    if kind != "basic_auth":
        ending = _JWT_END if kind == "jwt" else _TOKEN_END
        end = ending.match(passage, end).end()  # type: ignore[union-attr]  # it matches an empty text
    if cut := _NO_TOKEN.search(passage, begin, end):
        end = cut.start()
    if kind == "discord" and not any(letter.isdigit() for letter in passage[begin:end]):
        return
    # The end of a sentence, and a place for a value.
    end = begin + len(passage[begin:end].rstrip("."))
    if passage[begin:end] and passage[begin] not in "$%<{" and passage[begin:end] != SECRET:
        yield from _place(text, offset + begin, offset + end, kind)


def _keyword_values(text: str, lower: str) -> Iterator[_Place]:
    for begin, end in _cued(text, lower, _KEYWORD_CUES):
        passage = text[begin:end]
        if not _KEYWORD_VALUE.search(passage):
            continue
        for pattern, group in QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP.items():
            for match in pattern.finditer(passage):
                if _is_secret(match[group]):
                    yield from _place(text, begin + match.start(group), begin + match.end(group), "keyword")


def _unquoted_values(text: str, lower: str) -> Iterator[_Place]:
    for pattern, cues in UNQUOTED:
        for begin, end in _cued(text, lower, cues):
            for match in pattern.finditer(text, begin, end):
                if _is_secret(match[1]):
                    yield from _place(text, match.start(1), match.end(1), "keyword")


def _is_secret(value: str) -> bool:
    return (
        _VALUE.fullmatch(value) is not None
        and SECRET not in value
        and not is_sequential_string(value)
        and not is_potential_uuid(value)
        and _ENTROPY.calculate_shannon_entropy(value) >= _LEAST_ENTROPY
    )


def _private_keys(text: str, lower: str) -> Iterator[_Place]:
    if "private key" not in lower and "putty-user-key" not in lower:
        return
    for match in _PRIVATE_KEY.finditer(text):
        ending = _PRIVATE_KEY_END.search(text, match.end(), match.end() + _LONGEST_PRIVATE_KEY)
        end = ending.start() if ending else min(len(text), match.end() + _UNENDED_PRIVATE_KEY)
        lines = list(_KEY_LINE.finditer(text, match.end(), end))
        if lines and (last := _KEY_LAST_LINE.search(text, lines[-1].end(), end)):
            lines.append(last)
        for line in lines:
            yield from _place(text, line.start(), line.end(), "private_key")


def _addresses(text: str) -> Iterator[_Place]:
    for match in _DOMAIN.finditer(text):
        domain = match[1]
        top = domain.rpartition(".")[2]
        if not _TOP_LEVEL.fullmatch(top.lower() if top.isupper() else top):
            continue
        local = _LOCAL.search(text[max(0, match.start() - _LONGEST_LOCAL) : match.start()])
        if local and local[0] not in _NOT_PEOPLE and not _RESERVED_DOMAIN.fullmatch(domain):
            yield from _place(text, match.start() - len(local[0]), match.end(), "email")


def _place(text: str, begin: int, end: int, kind: str) -> Iterator[_Place]:
    """Yield a place without the letters of an escape that it seems to begin with, as in `\\nsecret`."""
    if _escaped(text, begin):
        begin += _ESCAPE_LETTERS.get(text[begin], 1)
    if begin < end:
        yield _Place(begin, end, kind)


def _escaped(text: str, at: int) -> bool:
    """Return whether a character follows an odd number of backslashes."""
    bare = text[max(0, at - 64) : at].rstrip("\\")
    return (min(at, 64) - len(bare)) % 2 == 1


def _values(texts: Sequence[str], places: Sequence[Sequence[_Place]]) -> dict[str, str]:
    """Return the values that are replaced wherever they are, each with its kind; longer ones come first."""
    found: dict[str, str] = {}
    for text, each in zip(texts, places, strict=True):
        for begin, end, kind in each:
            value = text[begin:end]
            if kind == "email" or (len(value) >= _SHORTEST_VALUE and any(letter.isdigit() for letter in value)):
                found.setdefault(value, kind)
    ordered = sorted(found.items(), key=lambda item: (-len(item[0]), item[0]))
    return dict(ordered[:_MOST_VALUES])


def _replaced(text: str, places: Sequence[_Place], values: dict[str, str], counts: Counter[str]) -> str:
    everywhere = list(places)
    for value, kind in values.items():
        at = text.find(value)
        while at >= 0:
            everywhere += _place(text, at, at + len(value), kind)
            at = text.find(value, at + len(value))
    everywhere.sort(key=lambda place: (place.begin, -place.end))
    parts: list[str] = []
    done = 0
    for begin, end, kind in everywhere:
        if begin < done:
            continue
        parts += text[done:begin], EMAIL if kind == "email" else SECRET
        counts[kind] += 1
        done = end
    return "".join(parts) + text[done:]
