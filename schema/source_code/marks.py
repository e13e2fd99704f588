"""What the scores look for in a syntax tree: one tree-sitter query for each language with a grammar.

Names of captures:
    branch: a place where the code decides.
    block: a block; the nesting of a document is the most blocks within one another.
    documented: a doc comment or docstring.
    idiom.NAME: an idiomatic pattern; a language has `PATTERNS_EACH` of them, or none.
    low.NAME: a low-quality mark.
Other names begin with `_` and are of use inside their pattern only.
"""

from __future__ import annotations

PATTERNS_EACH = 8
_TODO = r'(#match? @low.todo "\\b(TODO|FIXME|XXX|HACK)\\b")'

_PYTHON = rf"""
[(if_statement) (elif_clause) (for_statement) (while_statement) (except_clause) (case_clause)
 (conditional_expression) (boolean_operator) (for_in_clause) (if_clause)] @branch
(block) @block
(module . (comment)* . (expression_statement . (string) @documented .))
(block . (comment)* . (expression_statement . (string) @documented @idiom.docstring .))
(type) @idiom.type_hint
[(list_comprehension) (dictionary_comprehension) (set_comprehension)] @idiom.comprehension
(with_statement) @idiom.context_manager
[(yield) (generator_expression)] @idiom.generator
(decorator) @idiom.decorator
((decorator) @idiom.dataclass (#match? @idiom.dataclass "^@\\s*(dataclasses\\s*[.]\\s*)?dataclass\\b"))
(string (interpolation)) @idiom.f_string
((comment) @low.todo {_TODO})
(except_clause . ":") @low.bare_except
((call function: (identifier) @low.print) (#eq? @low.print "print"))
((call function: (identifier) @low.eval) (#any-of? @low.eval "eval" "exec"))
"""

_ITERATOR_STEPS = (
    *("all", "any", "chain", "collect", "copied", "cloned", "count", "enumerate", "filter", "filter_map", "find"),
    *("flat_map", "flatten", "fold", "for_each", "map", "max", "min", "max_by_key", "min_by_key", "partition"),
    *("position", "product", "rev", "skip", "step_by", "sum", "take", "take_while", "windows", "zip"),
)
_RUST = rf"""
[(if_expression) (match_arm) (while_expression) (for_expression) (loop_expression) (try_expression)] @branch
(binary_expression operator: ["&&" "||"]) @branch
[(block) (match_block) (declaration_list)] @block
[(line_comment (outer_doc_comment_marker)) (line_comment (inner_doc_comment_marker))
 (block_comment (outer_doc_comment_marker)) (block_comment (inner_doc_comment_marker))] @documented
((type_identifier) @idiom.result (#eq? @idiom.result "Result"))
((type_identifier) @idiom.option (#eq? @idiom.option "Option"))
(try_expression) @idiom.question_mark
((call_expression
   function: (field_expression value: (call_expression) field: (field_identifier) @idiom.iterator_chain))
 (#any-of? @idiom.iterator_chain {" ".join(f'"{step}"' for step in _ITERATOR_STEPS)}))
((attribute (identifier) @idiom.derive) (#eq? @idiom.derive "derive"))
(impl_item trait: (_)) @idiom.trait_impl
(match_expression) @idiom.match
(let_condition) @idiom.if_let
([(line_comment) (block_comment)] @low.todo {_TODO})
((macro_invocation macro: (identifier) @low.print) (#any-of? @low.print "println" "dbg"))
(unsafe_block) @low.unsafe
((attribute (identifier) @low.allow) (#eq? @low.allow "allow"))
"""

_JAVASCRIPT = """
[(if_statement) (for_statement) (for_in_statement) (while_statement) (do_statement) (switch_case) (catch_clause)
 (ternary_expression)] @branch
(binary_expression operator: ["&&" "||" "??"]) @branch
[(statement_block) (class_body) (switch_body)] @block
((comment) @documented (#match? @documented "^/[*][*][^*/]"))
"""
# TypeScript's grammar has all of JavaScript's nodes, and these.
_TYPESCRIPT = f"{_JAVASCRIPT}\n[(interface_body) (enum_body)] @block\n"
_GO = """
[(if_statement) (for_statement) (expression_case) (type_case) (communication_case)] @branch
(binary_expression operator: ["&&" "||"]) @branch
[(block) (expression_switch_statement) (type_switch_statement) (select_statement)] @block
((comment) @documented . [(function_declaration) (method_declaration) (type_declaration) (package_clause)])
"""
_C = """
[(if_statement) (for_statement) (while_statement) (do_statement) (case_statement) (conditional_expression)] @branch
(binary_expression operator: ["&&" "||"]) @branch
(compound_statement) @block
((comment) @documented (#match? @documented "^/([*][*][^*/]|[*]!|//[^/]|/!)"))
"""
_CPP = f"""{_C}
[(for_range_loop) (catch_clause)] @branch
(field_declaration_list) @block
"""
_JAVA = """
[(if_statement) (for_statement) (enhanced_for_statement) (while_statement) (do_statement) (switch_label)
 (catch_clause) (ternary_expression)] @branch
(binary_expression operator: ["&&" "||"]) @branch
[(block) (constructor_body) (class_body) (interface_body) (enum_body) (switch_block)] @block
((block_comment) @documented (#match? @documented "^/[*][*][^*/]"))
"""

QUERIES = {
    "python": _PYTHON,
    "rust": _RUST,
    "javascript": _JAVASCRIPT,
    "typescript": _TYPESCRIPT,
    "go": _GO,
    "c": _C,
    "cpp": _CPP,
    "java": _JAVA,
}
