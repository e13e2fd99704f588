"""Rows state where a file comes from: repository, commit and licence, and never a path of the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.source_code.licenses import file_license, license_of_text
from producers.source_code.sources import open_source, remote_name
from tests.producers.source_code.test_walking import git, tree

MIT = "MIT License\n\nPermission is hereby granted, free of charge, to any person\nobtaining a copy of this software"
APACHE = "                              Apache License\n                        Version 2.0, January 2004\n"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/owner/name.git", "owner/name"),
        ("https://user:secret@example.org:8443/owner/name", "owner/name"),
        ("git@example.org:owner/name.git", "owner/name"),
        ("ssh://git@example.org/group/owner/name.git/", "owner/name"),
        ("https://example.org/owner/name.git?private_token=secret", "owner/name"),
        ("https://example.org/owner/name#secret", "owner/name"),
        ("https://secret@example.org/", "example.org"),
        ("https://example.org/secret@owner/name", "owner/name"),
        ("https://user:sec/ret@example.org/owner/name", "owner/name"),
        ("oauth2:secret@example.org:owner/name.git", "owner/name"),
        ("/home/somebody/code/name.git", "name"),
        ("../name", "name"),
        ("file:///home/somebody/name.git", "name"),
        ("C:\\code\\name", "name"),
        ("/srv/name/.git", "name"),
        ("", None),
    ],
)
def test_a_remote_gives_owner_and_name_but_no_host_credentials_or_path(url: str, name: str | None) -> None:
    assert remote_name(url) == name


@given(st.text(alphabet="ab:/@.\\-", max_size=20))
def test_no_remote_gives_an_absolute_path(url: str) -> None:
    name = remote_name(url)
    assert name is None or (not name.startswith("/") and name.count("/") <= 1)


def test_the_name_comes_from_the_remote_then_the_crate_then_the_project_then_the_folder(tmp_path: Path) -> None:
    folder = tree(tmp_path / "folder", "a.py")
    assert open_source(folder).repository == "folder"
    (folder / "pyproject.toml").write_text('[project]\nname = "project"\n')
    assert open_source(folder).repository == "project"
    (folder / "Cargo.toml").write_text('[package]\nname = "crate"\n')
    assert open_source(folder).repository == "crate"
    git(folder, "init", "--quiet")
    assert open_source(folder).repository == "crate"
    git(folder, "remote", "add", "origin", "https://example.org/owner/name")
    assert open_source(folder).repository == "owner/name"


def test_the_commit_is_that_of_head_and_the_blobs_those_of_the_folder(tmp_path: Path) -> None:
    git(tree(tmp_path, "a.py", "d/b.py"), "init", "--quiet")
    assert (open_source(tmp_path).commit, open_source(tmp_path).blobs) == (None, {})
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "Begin")
    source = open_source(tmp_path / "d")
    assert source.commit == git(tmp_path, "rev-parse", "HEAD")
    assert source.blobs == {b"d/b.py": git(tmp_path, "rev-parse", "HEAD:d/b.py").encode()}


def test_a_linked_working_tree_and_a_shallow_clone_have_their_commit(tmp_path: Path) -> None:
    first = tree(tmp_path / "first", "a.py")
    git(first, "init", "--quiet")
    for message in ("One", "Two"):
        (first / "a.py").write_text(f"# {message}\n")
        git(first, "add", ".")
        git(first, "commit", "--quiet", "-m", message)
    git(first, "worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"), "HEAD~1")
    git(tmp_path, "clone", "--quiet", "--depth", "1", first.as_uri(), "shallow")
    linked, shallow = open_source(tmp_path / "linked"), open_source(tmp_path / "shallow")
    assert linked.commit == git(first, "rev-parse", "HEAD~1")
    assert shallow.commit == git(first, "rev-parse", "HEAD")
    assert (linked.shallow, shallow.shallow) == (False, True)


def test_a_broken_repository_is_read_as_a_plain_folder(tmp_path: Path) -> None:
    tree(tmp_path, "a.py", ".git/config")
    source = open_source(tmp_path)
    assert (source.git, source.commit, source.repository) == (False, None, tmp_path.name)


def test_a_published_crate_states_its_commit_unless_it_was_changed(tmp_path: Path) -> None:
    tree(tmp_path, "src/lib.rs")
    info = tmp_path / ".cargo_vcs_info.json"
    info.write_text(json.dumps({"git": {"sha1": "a1" * 20}, "path_in_vcs": ""}))
    source = open_source(tmp_path)
    assert (source.commit, source.blobs) == ("a1" * 20, None)
    for stated in ({"git": {"sha1": "a1" * 20, "dirty": True}}, {"git": {"sha1": 5}}, {"git": []}, [], 7):
        info.write_text(json.dumps(stated))
        assert open_source(tmp_path).commit is None


def test_the_licence_is_read_from_the_crate_then_the_project_then_the_licence_files(tmp_path: Path) -> None:
    tree(tmp_path, "a.py")
    assert open_source(tmp_path).license is None
    (tmp_path / "LICENSE-MIT").write_text(MIT)
    assert open_source(tmp_path).license == "MIT"
    (tmp_path / "LICENSE-APACHE").write_text(APACHE)
    assert open_source(tmp_path).license == "Apache-2.0 OR MIT"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nlicense = {text = "BSD-3-Clause"}\n')
    assert open_source(tmp_path).license == "BSD-3-Clause"
    (tmp_path / "Cargo.toml").write_text('[package]\nname = "x"\nlicense.workspace = true\n')
    assert open_source(tmp_path).license == "BSD-3-Clause"
    (tmp_path / "Cargo.toml").write_text(
        '[workspace.package]\nlicense = "MIT/Apache-2.0"\n[package]\nname = "x"\nlicense.workspace = true\n'
    )
    assert open_source(tmp_path).license == "MIT OR Apache-2.0"


def test_hostile_manifests_and_licence_files_give_no_licence(tmp_path: Path) -> None:
    tree(tmp_path, "a.py")
    (tmp_path / "Cargo.toml").write_text(f"package = {'9' * 5000}\n")
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "LICENSE").symlink_to("/dev/zero")
    (tmp_path / ".cargo_vcs_info.json").write_text("[" * 100_000)
    source = open_source(tmp_path)
    assert (source.license, source.commit, source.repository) == (None, None, tmp_path.name)


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("// SPDX-License-Identifier: Apache-2.0 OR MIT\nfn main() {}\n", "Apache-2.0 OR MIT"),
        ("/* SPDX-License-Identifier: GPL-2.0-only */\n", "GPL-2.0-only"),
        ("<!-- SPDX-License-Identifier: MIT -->\n", "MIT"),
        ("x = 1\n" + "#\n" * 2000 + "# SPDX-License-Identifier: MIT\n", None),
        ("# SPDX-License-Identifier:\n", None),
    ],
)
def test_a_file_states_its_licence_in_its_first_lines(text: str, license: str | None) -> None:
    assert file_license(text) == license


def test_an_unknown_licence_text_is_none() -> None:
    assert license_of_text("All rights reserved.") is None
    assert license_of_text(APACHE) == "Apache-2.0"
