"""Go's template language, `text/template`, as far as it can be written in a service spec or in a secret.

Owns: the grammar, its values and built-in functions, and error texts with their positions. Never: what a template may see; variables and
further functions come from the caller. All of it is pure.

Modules, in the order in which a template passes them: `lexer` (tokens), `parser` (a tree of `nodes`), `evaluate` (the text), with `values`
(what truth, printing and comparing mean), `functions` (the built-in ones) and `printf`.

Text is `str` with bytes that are not UTF-8 as surrogate escapes, so any payload survives; lengths and offsets count bytes, as in Go.
Complex numbers and calls of methods are left out: nothing here could make use of them.
Templates come from users, so all is bounded: output, steps, nesting.
"""

from pyswarm.gotemplate.evaluate import expand, expand_bytes
from pyswarm.gotemplate.functions import Function
from pyswarm.gotemplate.values import MAX_OUTPUT, MAX_STEPS, Budget, CallError, Struct, TemplateError, Value

__all__ = ["MAX_OUTPUT", "MAX_STEPS", "Budget", "CallError", "Function", "Struct", "TemplateError", "Value", "expand", "expand_bytes"]
