"""Git objects, read with bounds: the size of an object is known before the object is read.

dulwich reads an object whole before it says how large the object is. So this module finds and inflates objects itself,
and takes from dulwich the pack index, the application of deltas, and the parsing of trees and commits. It opens only
regular files, reads no configuration, and starts no process. Every failure is an `ObjectError` with a reason.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import stat
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dulwich.errors import ApplyDeltaError, FileFormatException
from dulwich.object_format import SHA1
from dulwich.objects import Commit, RawObjectID, Tree
from dulwich.pack import PackIndex, apply_delta, load_pack_index_file

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
_OFS_DELTA, _REF_DELTA = 6, 7
_KINDS = {b"commit": COMMIT, b"tree": TREE, b"blob": BLOB, b"tag": TAG}
_NAMES = {kind: name for name, kind in _KINDS.items()}
# git itself makes no longer chains.
_LONGEST_CHAIN = 4096
_CHUNK_BYTES = 1 << 16
# A tree of 50,000 files takes 2 MB. A delta may have a base that is larger than the object that it makes.
LARGEST_BASE_BYTES = 32 << 20
# Objects that were read last, because files that change together are deltas of one another.
_CACHED_BYTES = 16 << 20
_MOST_ALTERNATES = 8
_PACK_HEADER_BYTES = 12
# Deflated bytes that hold the sizes at the beginning of a delta: the table of codes comes before them.
_DELTA_HEAD_BYTES = 1024

# What dulwich raises when it parses damaged bytes.
DAMAGE = (
    *(FileFormatException, ApplyDeltaError, ValueError, KeyError, IndexError, AssertionError, TypeError, OverflowError),
    *(struct.error, zlib.error),
)


class ObjectError(Exception):
    """An object cannot be read; `reason` is `missing`, `damaged` or `too_large`."""

    def __init__(self, reason: str, object_id: bytes) -> None:
        super().__init__(f"object {object_id.decode('ascii', 'replace')}: {reason}")
        self.reason = reason


class _Entry(NamedTuple):
    """An object in a pack: `size` bytes after inflating what begins at `start`; `base` is an offset or an id."""

    kind: int
    size: int
    start: int
    base: int | bytes | None


class GitObjects:
    """The objects of a repository, from loose files and packs, in its own folder and in its alternates.

    Args:
        folder: the folder `objects`.

    Raises:
        OSError: the folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folders = list(_with_alternates(folder))
        self._packs = [pack for each in self._folders for pack in _packs(each)]
        self._recent: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()
        self._recent_bytes = 0

    def close(self) -> None:
        """Close the packs."""
        for pack in self._packs:
            pack.close()

    def commit(self, object_id: bytes, limit: int) -> Commit:
        """Return a commit of at most `limit` bytes.

        Raises:
            ObjectError: it is missing, damaged or larger.
        """
        data = self.read(object_id, COMMIT, limit)
        try:
            commit = Commit.from_string(data)
            if not _is_id(commit.tree) or not all(map(_is_id, commit.parents)):
                raise ValueError("an id of the commit is malformed")
        except DAMAGE as error:
            raise ObjectError("damaged", object_id) from error
        return commit

    def tree(self, object_id: bytes, limit: int) -> Tree:
        """Return a tree of at most `limit` bytes.

        Raises:
            ObjectError: it is missing, damaged or larger.
        """
        data = self.read(object_id, TREE, limit)
        try:
            tree = Tree.from_string(data)
            tree.items()
        except DAMAGE as error:
            raise ObjectError("damaged", object_id) from error
        return tree

    def size(self, object_id: bytes) -> int:
        """Return the size of an object in bytes, from its header.

        Raises:
            ObjectError: it is missing or damaged.
        """
        return self._find(object_id, limit=0, read=False)[1]

    def read(self, object_id: bytes, kind: int, limit: int) -> bytes:
        """Return the bytes of an object of one kind, whose hash is checked.

        Raises:
            ObjectError: it is missing, damaged, of another kind, or larger than `limit` bytes.
        """
        data, size, found = self._find(object_id, limit, read=True)
        header = b"%s %d\0" % (_NAMES.get(found, b""), size)
        # The ids of git are SHA-1; a change made on purpose to mislead is not what is looked for.
        digest = hashlib.sha1(header, usedforsecurity=False)
        digest.update(data)
        if found != kind or digest.hexdigest().encode() != object_id:
            raise ObjectError("damaged", object_id)
        return data

    def _find(self, object_id: bytes, limit: int, read: bool) -> tuple[bytes, int, int]:
        if not _is_id(object_id):
            raise ObjectError("damaged", object_id)
        try:
            return self._from_packs(object_id, limit, read) or self._from_file(object_id, limit, read)
        except (*DAMAGE, OSError) as error:
            raise ObjectError("damaged", object_id) from error

    def _from_packs(self, object_id: bytes, limit: int, read: bool) -> tuple[bytes, int, int] | None:
        for pack in self._packs:
            offset = pack.offset(object_id)
            if offset is None:
                continue
            kind, size = self._kind_and_size(pack, offset, object_id)
            if read and size > limit:
                raise ObjectError("too_large", object_id)
            return (self._unpacked(pack, offset, object_id)[1] if read else b""), size, kind
        return None

    def _kind_and_size(self, pack: _Pack, offset: int, object_id: bytes) -> tuple[int, int]:
        entry = pack.entry(offset)
        size = entry.size if entry.base is None else pack.delta_sizes(entry)[1]
        for _ in range(_LONGEST_CHAIN):
            if entry.base is None:
                return entry.kind, size
            entry = pack.entry(pack.base_offset(entry.base))
        raise ObjectError("damaged", object_id)

    def _unpacked(self, pack: _Pack, offset: int, object_id: bytes) -> tuple[int, bytes]:
        """Return the kind and the bytes of an object in a pack; its bases and deltas are bounded, too."""
        deltas: list[tuple[_Entry, bytes]] = []
        key = b"%d %d" % (id(pack), offset)
        for _ in range(_LONGEST_CHAIN):
            if (known := self._recent.get(key)) is not None:
                self._recent.move_to_end(key)
                kind, data = known
                break
            entry = pack.entry(offset)
            largest = entry.size if entry.base is None else max(entry.size, *pack.delta_sizes(entry))
            if largest > LARGEST_BASE_BYTES:
                raise ObjectError("too_large", object_id)
            if entry.base is None:
                kind, data = entry.kind, pack.inflated(entry.start, entry.size)
                self._keep(key, kind, data)
                break
            deltas.append((entry, key))
            offset = pack.base_offset(entry.base)
            key = b"%d %d" % (id(pack), offset)
        else:
            raise ObjectError("damaged", object_id)
        for entry, key in reversed(deltas):
            data = b"".join(apply_delta(data, pack.inflated(entry.start, entry.size)))
            self._keep(key, kind, data)
        return kind, data

    def _keep(self, key: bytes, kind: int, data: bytes) -> None:
        self._recent[key] = kind, data
        self._recent_bytes += len(data)
        while self._recent_bytes > _CACHED_BYTES:
            self._recent_bytes -= len(self._recent.popitem(last=False)[1][1])

    def _from_file(self, object_id: bytes, limit: int, read: bool) -> tuple[bytes, int, int]:
        name = object_id.decode("ascii")
        for folder in self._folders:
            try:
                file = open_regular(folder / name[:2] / name[2:])
            except FileNotFoundError:
                continue
            with file:
                return _loose(file, object_id, limit, read)
        raise ObjectError("missing", object_id)


class _Pack:
    """A pack and its index, mapped into memory."""

    def __init__(self, index: PackIndex, data: mmap.mmap) -> None:
        self._index = index
        self._data = data

    def close(self) -> None:
        self._index.close()
        self._data.close()

    def offset(self, object_id: bytes) -> int | None:
        try:
            return self._index.object_offset(RawObjectID(bytes.fromhex(object_id.decode("ascii"))))
        except KeyError:
            return None

    def base_offset(self, base: int | bytes) -> int:
        """Return the offset of the base of a delta; git keeps it in the same pack."""
        offset = base if isinstance(base, int) else self.offset(base)
        if offset is None:
            raise ValueError("the base of a delta is not in its pack")
        return offset

    def entry(self, offset: int) -> _Entry:
        """Return the header of the object at an offset.

        Raises:
            ValueError: the pack is damaged.
        """
        if not _PACK_HEADER_BYTES <= offset < len(self._data):
            raise ValueError("an offset is outside the pack")
        at = offset
        byte = self._data[at]
        kind, size, shift = byte >> 4 & 7, byte & 15, 4
        while byte & 128:
            at += 1
            byte = self._data[at]
            size |= (byte & 127) << shift
            shift += 7
            if shift > 70:
                raise ValueError("a size is too long")
        at += 1
        if kind == _OFS_DELTA:
            byte = self._data[at]
            back = byte & 127
            while byte & 128:
                at += 1
                byte = self._data[at]
                back = (back + 1) << 7 | byte & 127
                if back > len(self._data):
                    break
            if not 0 < back <= offset:
                raise ValueError("the base of a delta is outside the pack")
            return _Entry(kind, size, at + 1, offset - back)
        if kind == _REF_DELTA:
            return _Entry(kind, size, at + 20, self._data[at : at + 20].hex().encode())
        if kind not in _NAMES:
            raise ValueError("an object has an unknown kind")
        return _Entry(kind, size, at, None)

    def delta_sizes(self, entry: _Entry) -> tuple[int, int]:
        """Return the sizes of the base and of the result of a delta, from its first bytes."""
        head = zlib.decompressobj().decompress(self._data[entry.start : entry.start + _DELTA_HEAD_BYTES], 20)
        base, at = _varint(head, 0)
        return base, _varint(head, at)[0]

    def inflated(self, start: int, size: int) -> bytes:
        """Return the `size` bytes that are deflated from an offset on.

        Raises:
            ValueError, zlib.error: there are more or fewer bytes, or they are damaged.
        """

        def chunks() -> Iterator[bytes]:
            for at in range(start, len(self._data), _CHUNK_BYTES):
                yield self._data[at : at + _CHUNK_BYTES]

        return _inflate(zlib.decompressobj(), chunks(), b"", size)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe or a device, which could block or never end, is refused.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(f"{path} is not a regular file")
    return os.fdopen(number, "rb")


def read_small(path: Path, limit: int = 1 << 16) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"{path} has more than {limit} bytes")
    return data


def _is_id(object_id: bytes | None) -> bool:
    return object_id is not None and re.fullmatch(rb"[0-9a-f]{40}", object_id) is not None


def _with_alternates(folder: Path) -> Iterator[Path]:
    """Yield the folder and the folders that it borrows objects from, each once."""
    todo, seen = [folder], set[Path]()
    while todo and len(seen) < _MOST_ALTERNATES:
        each = todo.pop(0).resolve()
        if each in seen or not each.is_dir():
            continue
        seen.add(each)
        yield each
        with suppress(OSError):
            lines = read_small(each / "info" / "alternates").replace(b"\0", b"").splitlines()
            todo += [each / os.fsdecode(line) for line in lines if line and not line.startswith(b"#")]


def _packs(folder: Path) -> Iterator[_Pack]:
    """Yield the packs of a folder in order of their names; a pack that cannot be opened has no objects."""
    for path in sorted((folder / "pack").glob("pack-*.idx")):
        with suppress(*DAMAGE, OSError):
            with open_regular(path.with_suffix(".pack")) as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if data[:4] != b"PACK" or int.from_bytes(data[4:8]) not in (2, 3):
                raise ValueError("the file is no pack")
            yield _Pack(load_pack_index_file(path, open_regular(path), SHA1), data)


def _loose(file: BinaryIO, object_id: bytes, limit: int, read: bool) -> tuple[bytes, int, int]:
    inflater = zlib.decompressobj()
    head = inflater.decompress(file.read(_CHUNK_BYTES), 64)
    name, end, first = head.partition(b"\0")
    kind, _, digits = name.partition(b" ")
    if not end or kind not in _KINDS or not digits.isdigit():
        raise ObjectError("damaged", object_id)
    size = int(digits)
    if not read:
        return b"", size, _KINDS[kind]
    if size > limit:
        raise ObjectError("too_large", object_id)
    return _inflate(inflater, iter(lambda: file.read(_CHUNK_BYTES), b""), first, size), size, _KINDS[kind]


def _inflate(inflater: zlib._Decompress, chunks: Iterator[bytes], first: bytes, size: int) -> bytes:
    """Return exactly `size` bytes; never holds more than one byte above `size`."""
    parts, room, waiting = [first], size - len(first), inflater.unconsumed_tail
    while not inflater.eof and room >= 0:
        waiting = waiting or next(chunks, b"")
        if not waiting:
            break
        parts.append(inflater.decompress(waiting, room + 1))
        room -= len(parts[-1])
        waiting = inflater.unconsumed_tail
    if room or not inflater.eof:
        raise ValueError("an object has another size than its header says")
    return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if not byte & 128:
            return value, at
