"""Evaluation of generated code: a compiler, a linter and tests judge each code sample in a sandbox.

In reading order:

- `samples`, `sample_files`, `clean_samples`: a code sample, and where samples come from;
- `prefilter`: samples that are left out before the compiler sees them;
- `limits`, `limited_process`, `system_calls`, `sandbox`: run an untrusted program;
- `rust_toolchain`, `rust_crates`, `rust_diagnostics`, `rust_judge`, `python_judge`: judge one sample;
- `verdicts`, `evaluation`: the verdicts of all samples, and their figures.
"""
