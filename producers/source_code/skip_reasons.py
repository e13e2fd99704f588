"""The reasons why a file of a source tree gives no document. A skipped file is counted under exactly one of them."""

from __future__ import annotations

from collections.abc import Mapping

SKIP_REASONS: Mapping[str, str] = {
    "special_file": "a FIFO, socket or device; never opened",
    "link": "a symbolic link to a file or folder of the same tree, which is read at its own place",
    "link_out_of_tree": "a symbolic link that leads out of the tree",
    "link_loop": "a symbolic link to a folder that it is in, or to itself",
    "link_broken": "a symbolic link to nothing",
    "name_not_utf8": "its name, or the name of a folder above it, is not UTF-8",
    "git_ignored": "a .gitignore file or .git/info/exclude excludes it",
    "submodule": "in a repository inside this repository; give its folder as a PATH of its own",
    "bare_repository": "in a bare repository, which has no files but a history",
    "vendored": "in a folder of third-party code, such as vendor or site-packages",
    "node_modules": "in node_modules",
    "lock_file": "a lock file of a package manager",
    "test": "a test, or in a folder of tests; or all its items are tests",
    "bench": "a benchmark, or in a folder of benchmarks",
    "example": "an example, or in a folder of examples",
    "binary": "its extension is that of a binary file, such as .png",
    "unknown_language": "its extension and name belong to no known language",
    "too_large": "over the limit on the size of a file",
    "unreadable": "the file or folder cannot be read",
    "empty": "no character but white space",
    "nul_bytes": "a NUL byte is in it",
    "not_utf8": "it is not UTF-8",
    "generated": "a comment in its first lines, or its name, says that a program wrote it",
    "minified": "its lines are too long to be written by hand",
    "path_secret": "its path holds a secret or an e-mail address, and the run scrubs files",
    "contaminated": "13 consecutive words of it are in a file that --decontaminate names",
}
