"""Renaming of local variables in Rust files, and that real crates still type-check after every augmentation."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from schema.source_code.grammar import parse
from streams.augmentation.source_code.documents import Document, LeftOut
from streams.augmentation.source_code.rust_names import renamable
from tests.source_code import parses

# A file, and the names in it that are renamed.
CASES = {
    "fn f(a: u8) -> u8 { let b = a; b }": "a b",
    "fn f(a: u8) -> u8 { let a = a + 1; { let a = a; a } }": "a",
    "fn f(s: S) -> S { let x = s.x; S { x, y: 1 } }": "s x",
    "fn f(s: S) -> u8 { let S { x, ref mut y, z: w, .. } = s; x + *y + w }": "s x y w",
    'fn f(a: u8) { println!("{a}"); let b = a; }': "b",
    'fn f(a: u8, c: u8) { println!("{}", a); let b = c; }': "b c",
    "const n: u8 = 1; fn f(x: u8) { match x { n => 1, m => m }; }": "x m",
    "use a::n; fn f(x: u8) { match x { n => 1, m => m }; }": "x m",
    "fn f(x: O) { match x { Some(y) if y > 1 => y, None => 1, N => 2 }; }": "x y",
    "fn f(x: O) { if let Some(y) = x { y } else { y }; }": "x",
    "fn f(x: O) { if let Some(y) = x && y > 1 { y } else { 1 }; }": "x y",
    "fn f(x: O) { while let Some(y) = x { g(y); } }": "x y",
    "fn f(x: O) { let Some(y) = x else { return }; y }": "x y",
    "fn f(x: O) { for (i, y) in x { 'a: loop { break 'a i + y; } } }": "x i y",
    "fn f(x: O) { let a = 1; 'a: loop { break 'a; } a }": "x a",
    "fn f(v: V) { v.map(|a, (b, &c)| a + b + c) }": "v a b c",
    "fn f(v: V) { max(1, 2); let max = v; max }": "v",
    "fn f(v: V) { v::new(v.v, self::v()) }": "v",
    "fn f(v: V) { match v { A(x) | B(x) => x, x @ C { .. } => x, [x, .., y] => x } }": "v x y",
    "#[pyfunction] fn f(a: u8) { a } #[inline] fn g(b: u8) { b }": "b",
    "#[pymethods] impl A { fn f(a: u8) { a } }": "",
    "fn f(a: u8) { fn g(b: u8) { b } g(a) }": "a b",
    "fn f(r#type: u8, _a: u8, A: u8) { r#type }": "_a",
    'fn f(a: u8) { include!("x.rs"); a }': "",
    "macro_rules! m { ($a:ident) => { fn f(b: u8) { b } } }": "",
    "impl A { fn f(&self, n: u8) -> u8 { self.n + n } }": "n",
}


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_only_names_that_mean_local_variables_are_renamed(text: str, expected: str) -> None:
    tree = parse(text.encode(), "rust")
    assert tree is not None and not tree.root_node.has_error
    assert set(renamable(text.encode(), tree).places) == set(expected.split())
    if expected:
        new = Document(text, "rust").augmented("renamed", 3)
        assert parses(new.encode(), "rust")


def test_a_field_keeps_its_name_if_the_variable_of_the_same_name_is_renamed() -> None:
    text = "fn f(x: u8) -> S { let S { ref mut y, .. } = g(); S { x, y } }"
    new = Document(text, "rust").augmented("renamed", 3)
    words = new.replace("(", " ").replace(":", " :").split()
    one, two = words[2], new.partition("y: ref mut ")[2].partition(",")[0]
    assert new == f"fn f({one}: u8) -> S {{ let S {{ y: ref mut {two}, .. }} = g(); S {{ x: {one}, y: {two} }} }}"


# Crates without dependencies; each is checked as its manifest says.
CRATES = {
    "either": "1.13.0",
    "arrayvec": "0.7.4",
    "hex": "0.4.3",
    "itoa": "1.0.11",
    "semver": "1.0.23",
    "smallvec": "1.13.2",
    "unicode-width": "0.1.13",
}
# A crate for machines whose cargo has no registry.
OWN = """//! Words of a text.
use std::collections::HashMap;

/// How often a word occurs.
pub struct Count<'a> {
    pub word: &'a str,
    pub times: usize,
}

/* All counts. */
pub fn counts<'a>(text: &'a str, least: usize) -> Vec<Count<'a>> {
    let mut found: HashMap<&'a str, usize> = HashMap::new();
    for word in text.split(|letter: char| !letter.is_alphanumeric()) {
        if let Some(times) = found.get_mut(word) {
            *times += 1; // again
        } else if !word.is_empty() {
            found.insert(word, 1);
        }
    }
    let mut all: Vec<_> = found
        .into_iter()
        .filter(|&(_, times)| times >= least)
        .map(|(word, times)| Count { word, times })
        .collect();
    all.sort_by(|one, other| other.times.cmp(&one.times).then(one.word.cmp(other.word)));
    all
}

pub fn shown(count: &Count) -> String {
    let Count { word, times } = count;
    let factor = match times {
        0 | 1 => 1,
        many @ 2..=9 => *many,
        _ => 10,
    };
    format!("{word}: {times} {}", factor)
}
"""


def program(name: str) -> str:
    path = shutil.which(name)
    assert path, f"{name} is missing: install a Rust toolchain to run this test"
    return path


def crates(folder: Path) -> list[tuple[str, Path, list[str]]]:
    """Return (name, folder, options of rustc) of each crate; a crate written here if cargo cannot fetch."""
    (folder / "src").mkdir()
    (folder / "src" / "lib.rs").write_text(OWN)
    wanted = "".join(f'{name} = "={version}"\n' for name, version in CRATES.items())
    manifest = '[package]\nname = "own"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\n'
    (folder / "Cargo.toml").write_text(manifest + wanted)
    metadata = [program("cargo"), "metadata", "--format-version=1", "--quiet"]
    done = subprocess.run(metadata, cwd=folder, capture_output=True, text=True, timeout=60)
    if done.returncode:
        (folder / "Cargo.toml").write_text(manifest)
        done = subprocess.run(
            [*metadata, "--offline"], cwd=folder, capture_output=True, text=True, timeout=60, check=True
        )
    facts = json.loads(done.stdout)
    features = {node["id"]: node["features"] for node in facts["resolve"]["nodes"]}
    return [
        (
            package["name"],
            Path(package["manifest_path"]).parent,
            [
                f"--edition={package['edition']}",
                *(option for feature in features[package["id"]] for option in ("--cfg", f'feature="{feature}"')),
            ],
        )
        for package in facts["packages"]
    ]


def type_checks(folder: Path, options: list[str]) -> str:
    """Return the compiler's errors, empty if the crate in `folder` type-checks."""
    command = [program("rustc"), "--crate-type=lib", "--emit=metadata", "--cap-lints=allow", *options]
    out = folder / "out"
    out.mkdir(exist_ok=True)
    done = subprocess.run(
        [*command, "--out-dir", str(out), "src/lib.rs"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    return done.stderr[:2000] if done.returncode else ""


@pytest.mark.slow
def test_crates_that_type_check_still_do_after_each_augmentation(tmp_path: Path) -> None:
    checked: Counter[str] = Counter()
    project = tmp_path / "project"
    project.mkdir()
    for name, original, options in crates(project):
        target = tmp_path / name
        shutil.copytree(original / "src", target / "src")
        if type_checks(target, options):
            continue  # it needs a build script
        for number, kind in enumerate(("renamed", "comments", "reformatted", "comments", "renamed")):
            changed = 0
            for path in sorted((original / "src").rglob("*.rs")):
                # Line feeds as in the file.
                text = path.read_bytes().decode()
                try:
                    new = Document(text, "rust").augmented(kind, number)
                    changed += 1
                except LeftOut as reason:
                    assert str(reason) in ("unchanged", "not_parsed"), path
                    new = text
                assert parses(new.encode(), "rust") or new == text, path
                (target / path.relative_to(original)).write_bytes(new.encode())
            assert type_checks(target, options) == "", (name, kind)
            checked[kind] += changed
    assert min(checked[kind] for kind in ("renamed", "comments", "reformatted")) >= 1, checked


@pytest.mark.parametrize(
    "text",
    [
        "fn f(a: u8) { " + "if b {} else " * 8_000 + "{} }",
        "#[foo]\n" * 15_000 + "fn f(a: u8) {}",
    ],
)
def test_deep_and_long_rows_of_nodes_take_linear_time(text: str) -> None:
    tree = parse(text.encode(), "rust")
    assert tree is not None
    began = time.process_time()
    found = renamable(text.encode(), tree)
    assert time.process_time() - began < 5
    assert ("a" in found.places) == text.startswith("fn")
