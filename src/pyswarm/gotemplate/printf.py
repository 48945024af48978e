"""Go's `printf` for the values that templates have. What does not fit never fails: it shows in the output, as `%!d(string=x)`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyswarm.gotemplate.values import (
    MAX_OUTPUT,
    CallError,
    Struct,
    Value,
    in_order,
    kind_of,
    octets,
    printed,
    quoted,
    quoted_rune,
    shortest,
)

_VERB = re.compile(r"%([-+# 0]*)(?:\[(\d+)\])?(\*|\d+)?(?:(\.)(?:\[(\d+)\])?(\*|\d+)?)?(?:\[(\d+)\])?(.)?", re.DOTALL)
_BASES = {"b": "b", "o": "o", "O": "o", "d": "d", "x": "x", "X": "X"}
_LARGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Spec:
    """Flags, width and precision of a verb."""

    flags: str
    width: int | None
    precision: int | None
    verb: str

    def pad(self, text: str) -> str:
        """To its width; zeroes go before text too, unless it stays left."""
        missing = (self.width or 0) - len(text)
        if missing <= 0:
            return text
        if "-" in self.flags:
            return text + " " * missing
        return ("0" if "0" in self.flags else " ") * missing + text

    def pad_number(self, text: str) -> str:
        """The same, with zeroes after the sign."""
        if "0" in self.flags and "-" not in self.flags and text[:1] in {"+", "-", " "}:
            return text[0] + Spec(self.flags, (self.width or 0) - 1, None, self.verb).pad(text[1:])
        return self.pad(text)

    def signed(self, text: str) -> str:
        """With the sign that flags ask for."""
        if text.startswith("-"):
            return text
        return ("+" if "+" in self.flags else " " if " " in self.flags else "") + text


class _Arguments:
    """The operands, taken in order or by number."""

    def __init__(self, values: Sequence[Value]) -> None:
        self._values = values
        self.next = 0
        self.reordered = False
        self.bad = False

    def go_to(self, number: str | None) -> None:
        if number is not None:
            self.reordered = True
            self.bad = not 1 <= int(number) <= len(self._values)
            self.next = int(number) - 1 if not self.bad else self.next

    def left(self) -> bool:
        return self.next < len(self._values)

    def take(self) -> Value:
        self.next += 1
        return self._values[self.next - 1]

    def unused(self) -> Sequence[Value]:
        return () if self.reordered else self._values[self.next :]


def sprintf(form: str, values: Sequence[Value]) -> str:
    """The text that a format makes of values."""
    arguments = _Arguments(values)
    parts: list[str] = []
    at = size = 0
    for match in _VERB.finditer(form):
        parts += (form[at : match.start()], _operation(match, arguments))
        at = match.end()
        size += len(parts[-1])
        if size > MAX_OUTPUT:
            raise CallError(f"more than {MAX_OUTPUT} bytes")
    parts.append(form[at:])
    if unused := arguments.unused():
        shown = ", ".join("<nil>" if value is None else f"{kind_of(value)}={printed(value)}" for value in unused)
        parts.append(f"%!(EXTRA {shown})")
    return "".join(parts)


def _operation(match: re.Match[str], arguments: _Arguments) -> str:
    flags, first, width, point, second, precision, third, verb = match.groups()
    errors: list[str] = []
    arguments.bad = False
    arguments.go_to(first if width == "*" else None)
    wide = _amount(width, arguments, errors, "%!(BADWIDTH)")
    if wide is not None and wide < 0:
        flags, wide = flags + "-", -wide
    arguments.go_to(second if precision == "*" else None)
    precise = _amount(precision or "0", arguments, errors, "%!(BADPREC)") if point else None
    if precise is not None and precise < 0:
        precise = None
        errors += ["%!(BADPREC)"] if precision == "*" else []
    for number in (third, second if precision is None else None, first if width is None else None):
        arguments.go_to(number)
    if verb is None:
        return "".join([*errors, "%!(NOVERB)"])
    if verb == "%":
        return "".join([*errors, "%"])
    if arguments.bad:
        return "".join([*errors, f"%!{verb}(BADINDEX)"])
    if not arguments.left():
        return "".join([*errors, f"%!{verb}(MISSING)"])
    return "".join([*errors, formatted(Spec(flags, wide, precise, verb), arguments.take())])


def _amount(text: str | None, arguments: _Arguments, errors: list[str], otherwise: str) -> int | None:
    if text is None:
        return None
    value: Value = int(text) if text != "*" else None
    if text == "*" and arguments.left():
        value = arguments.take()
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST:
        errors.append(otherwise)
        return None
    return value


def formatted(spec: Spec, value: Value) -> str:
    """One value by one verb."""
    if spec.verb == "T":
        return spec.pad(kind_of(value))
    done: str | None = None
    match value:
        case None:
            return spec.pad("<nil>") if spec.verb == "v" else f"%!{spec.verb}(<nil>)"
        case bool():
            done = spec.pad(printed(value)) if spec.verb in "tv" else None
        case int():
            done = _integer(spec, value)
        case float():
            done = _float(spec, value)
        case str():
            done = _string(spec, value)
        case Struct():
            return "{" + " ".join(formatted(spec, field) for field in value.fields.values()) + "}"
        case Mapping():
            return "map[" + " ".join(f"{formatted(spec, key)}:{formatted(spec, value[key])}" for key in in_order(value)) + "]"
    if done is not None:
        return done
    plain = formatted(Spec(spec.flags.replace("#", ""), spec.width, spec.precision, "v"), value)
    return f"%!{spec.verb}({kind_of(value)}={plain})"


def _integer(spec: Spec, value: int) -> str | None:
    verb = "d" if spec.verb == "v" else spec.verb
    if verb == "c":
        return spec.pad(chr(value) if 0 <= value < 0x110000 else "\ufffd")
    if verb == "q":
        return spec.pad(quoted_rune(value))
    if verb == "U":
        return spec.pad(f"U+{value:04X}" + (f" '{chr(value)}'" if "#" in spec.flags and chr(value).isprintable() else ""))
    if verb not in _BASES:
        return None
    if spec.precision == 0 and value == 0:
        return " " * (spec.width or 0)
    digits = format(abs(value), _BASES[verb])
    if spec.precision is not None:
        digits = digits.rjust(spec.precision, "0")
    elif "0" in spec.flags and "-" not in spec.flags and spec.width:
        sign = value < 0 or bool({"+", " "} & set(spec.flags))
        digits = digits.rjust(spec.width - sign, "0")
    prefix = "0o" if verb == "O" else {"b": "0b", "o": "0", "x": "0x", "X": "0X"}.get(verb, "") if "#" in spec.flags else ""
    if verb == "o" and digits.startswith("0"):
        prefix = ""
    flags = spec.flags.replace("0", "")
    return Spec(flags, spec.width, None, verb).pad(spec.signed(("-" if value < 0 else "") + prefix + digits))


def _float(spec: Spec, value: float) -> str | None:
    verb = spec.verb
    if verb not in "vgGeEfF":
        return None
    verb = "g" if verb == "v" else verb
    if verb in "gG" and spec.precision is None:
        text = shortest(value)
        text = text.upper() if verb == "G" else text
    else:
        text = format(value, f".{6 if spec.precision is None else spec.precision}{verb}")
    return spec.pad_number(spec.signed(text))


def _string(spec: Spec, value: str) -> str | None:
    verb = spec.verb
    cut = value if spec.precision is None else value[: spec.precision]
    if verb == "v" and "#" in spec.flags:
        verb = "q"
    if verb in {"s", "v"}:
        return spec.pad(cut)
    if verb == "q":
        raw = "#" in spec.flags and spec.verb == "q" and "`" not in cut and all(c == "\t" or c.isprintable() for c in cut)
        return spec.pad(f"`{cut}`" if raw else quoted(cut, ascii_only="+" in spec.flags))
    if verb not in {"x", "X"}:
        return None
    data = octets(value)
    data = data if spec.precision is None else data[: spec.precision]
    prefix = f"0{verb}" if "#" in spec.flags else ""
    pairs = [format(octet, "02" + verb) for octet in data]
    spaced = " " in spec.flags
    text = " ".join(prefix + pair for pair in pairs) if spaced else (prefix if pairs else "") + "".join(pairs)
    return spec.pad(text)
