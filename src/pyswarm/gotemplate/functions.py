"""The built-in functions. `and` and `or` are not here: they evaluate no more arguments than they need (`evaluate`)."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pyswarm.gotemplate.printf import sprintf
from pyswarm.gotemplate.values import CallError, Struct, Value, equal, kind_of, less, octets, printed, text_of, truth

Parameter: TypeAlias = Literal["any", "string"]
_HTML = str.maketrans({'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"})
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}
_MOST_SLICES = 2


@dataclass(frozen=True, slots=True)
class Function:
    """What a template may call: its parameters' types, and that of any number of further ones (None: there are none).

    `call` raises CallError.
    """

    call: Callable[[Sequence[Value]], Value]
    fixed: tuple[Parameter, ...] = ()
    more: Parameter | None = None


def _index(arguments: Sequence[Value]) -> Value:
    item = arguments[0]
    if item is None:
        raise CallError("index of untyped nil")
    for key in arguments[1:]:
        if isinstance(item, str):
            data = octets(item)
            position = _position(key, len(data))
            if position == len(data):
                raise CallError("reflect: string index out of range")
            item = data[position]
        elif isinstance(item, Mapping):
            if not isinstance(key, str):
                raise CallError(
                    "value is nil; should be of type string" if key is None else f"value has type {kind_of(key)}; should be string"
                )
            item = item.get(key, "")
        else:
            raise CallError(f"can't index item of type {kind_of(item)}")
    return item


def _slice(arguments: Sequence[Value]) -> Value:
    item, keys = arguments[0], arguments[1:]
    if item is None:
        raise CallError("slice of untyped nil")
    if len(keys) > _MOST_SLICES + 1:
        raise CallError(f"too many slice indexes: {len(keys)}")
    if not isinstance(item, str):
        raise CallError(f"can't slice item of type {kind_of(item)}")
    if len(keys) > _MOST_SLICES:
        raise CallError("cannot 3-index slice a string")
    data = octets(item)
    bounds = [_position(key, len(data)) for key in keys]
    begin, end = [*bounds, *(0, len(data))[len(bounds) :]]
    if begin > end:
        raise CallError(f"invalid slice index: {begin} > {end}")
    return text_of(data[begin:end])


def _position(key: Value, length: int) -> int:
    if key is None:
        raise CallError("cannot index slice/array with nil")
    if isinstance(key, bool) or not isinstance(key, int):
        raise CallError(f"cannot index slice/array with type {kind_of(key)}")
    if not 0 <= key <= length:
        raise CallError(f"index out of range: {key}")
    return key


def _length(arguments: Sequence[Value]) -> Value:
    value = arguments[0]
    if value is None:
        raise CallError("len of nil pointer")
    if isinstance(value, str):
        return len(octets(value))
    if isinstance(value, bool | int | float | Struct):
        raise CallError(f"len of type {kind_of(value).removeprefix('*')}")
    return len(value)


def _print(arguments: Sequence[Value]) -> str:
    """A space between two operands when neither is a string."""
    parts: list[str] = []
    for position, value in enumerate(arguments):
        if position and not isinstance(value, str) and not isinstance(arguments[position - 1], str):
            parts.append(" ")
        parts.append(printed(value))
    return "".join(parts)


def _shown(arguments: Sequence[Value]) -> str:
    """The same with nothing as it shows in the output."""
    return _print(["<no value>" if value is None else value for value in arguments])


def _println(arguments: Sequence[Value]) -> str:
    return " ".join(map(printed, arguments)) + "\n"


def _printf(arguments: Sequence[Value]) -> str:
    return sprintf(str(arguments[0]), arguments[1:])


def _js(arguments: Sequence[Value]) -> str:
    return "".join(_js_escaped(character) for character in _shown(arguments))


def _js_escaped(character: str) -> str:
    code = ord(character)
    if character in _JS:
        return _JS[character]
    if (code >= 0x20 and character.isprintable()) or code > 0xFFFF:
        return character
    return f"\\u{code:04X}"


def _query(arguments: Sequence[Value]) -> str:
    return urllib.parse.quote_plus(octets(_shown(arguments)), safe="")


def _call(arguments: Sequence[Value]) -> Value:
    if arguments[0] is None:
        raise CallError("call of nil")
    raise CallError(f"non-function {printed(arguments[0])} of type {kind_of(arguments[0])}")


def _text(call: Callable[[Sequence[Value]], str]) -> Function:
    return Function(call, more="any")


def _order(compare: Callable[[Value, Value], bool]) -> Function:
    return Function(lambda arguments: compare(arguments[0], arguments[1]), ("any", "any"))


BUILT_IN: Mapping[str, Function] = {
    "call": Function(_call, ("any",), "any"),
    "html": _text(lambda arguments: _shown(arguments).translate(_HTML)),
    "index": Function(_index, ("any",), "any"),
    "js": _text(_js),
    "len": Function(_length, ("any",)),
    "not": Function(lambda arguments: not truth(arguments[0]), ("any",)),
    "print": _text(_print),
    "printf": Function(_printf, ("string",), "any"),
    "println": _text(_println),
    "slice": Function(_slice, ("any",), "any"),
    "urlquery": _text(_query),
    "eq": Function(lambda arguments: equal(arguments[0], list(arguments[1:])), ("any",), "any"),
    "ne": _order(lambda one, other: not equal(one, [other])),
    "lt": _order(less),
    "le": _order(lambda one, other: less(one, other) or equal(one, [other])),
    "gt": _order(lambda one, other: not (less(one, other) or equal(one, [other]))),
    "ge": _order(lambda one, other: not less(one, other)),
}
