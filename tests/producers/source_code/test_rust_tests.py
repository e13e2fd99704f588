"""Test items of Rust files are found on the syntax tree, and nothing else is removed."""

from __future__ import annotations

import time

import pytest

from producers.source_code import rust_tests
from producers.source_code.rust_tests import without_tests

CODE = "/// Adds.\npub fn add(a: u32) -> u32 {\n    a + 1\n}\n"


@pytest.mark.parametrize(
    "item",
    [
        "#[cfg(test)]\nmod tests {\n    use super::*;\n    #[test]\n    fn adds() { assert_eq!(add(1), 2); }\n}\n",
        '#[cfg(all(test, feature = "x"))]\nmod more;\n',
        '#[cfg(all(feature = "x", test))]\nuse std::io;\n',
        "/// Checks.\n#[allow(dead_code)]\n#[test]\nfn checks() {}\n",
        '#[test]\n#[should_panic(expected = "]")]\nfn panics() {}\n',
        '#[tokio::test(flavor = "multi_thread")]\nasync fn waits() {}\n',
        "  #[ cfg ( test ) ] const X: u32 = 1; // why\n",
    ],
)
def test_a_test_item_is_removed_with_its_attributes_and_doc_comments(item: str) -> None:
    left = "// why\n" if item.endswith("why\n") else ""
    assert without_tests(f"{CODE}{item}{CODE}").replace(" // why", "// why") == f"{CODE}{left}{CODE}"


@pytest.mark.parametrize(
    "kept",
    [
        "#[cfg(not(test))]\nfn real() {}\n",
        '#[cfg(any(test, feature = "x"))]\nfn both() {}\n',
        "#[cfg(all(not(test), unix))]\nfn real() {}\n",
        '#[cfg(feature = "test")]\nfn feature() {}\n',
        'const S: &str = "#[cfg(test)] mod tests {}";\n',
        "// #[cfg(test)]\nmod tests {}\n",
        "/* #[test] */\nfn test() {}\n",
        "#[derive(test_derive::Latest)]\nstruct Latest;\n",
    ],
)
def test_other_items_that_mention_tests_stay(kept: str) -> None:
    assert without_tests(CODE + kept) == CODE + kept


def test_a_file_that_is_a_test_becomes_empty_and_a_module_that_is_one_goes() -> None:
    assert without_tests("#![cfg(test)]\n" + CODE).strip() == ""
    assert without_tests(CODE + "/// Inner.\nmod inner {\n    #![cfg(test)]\n    fn x() {}\n}\n" + CODE) == CODE + CODE


def test_characters_of_several_bytes_do_not_move_the_cut() -> None:
    assert without_tests('const É: &str = "ß";\n#[test]\nfn ö() {}\nconst Z: u8 = 1;\n') == (
        'const É: &str = "ß";\nconst Z: u8 = 1;\n'
    )


def test_nested_test_items_are_one_cut() -> None:
    item = "#[cfg(test)]\nmod a {\n    #[test]\n    fn b() {}\n}\n"
    assert without_tests(item + CODE + item) == CODE


def test_many_attributes_of_one_item_take_linear_time() -> None:
    began = time.process_time()
    assert without_tests("fn a() {}\n" + "#[test]\n" * 40_000 + "fn f() {}\nfn b() {}\n") == "fn a() {}\nfn b() {}\n"
    assert time.process_time() - began < 10


def test_a_text_that_takes_long_to_parse_is_not_parsed_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rust_tests, "parse", lambda *_: pytest.fail("parsed here"))
    text = "{" * 600_000 + "test"
    assert without_tests(text) == text
