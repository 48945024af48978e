"""Reading a command line."""

from __future__ import annotations

import pytest

from pyswarm.cli.flagset import BOOL, DURATION, STRING, STRINGS, UINT, Flag, FlagError, Given, csv_record, parse

FLAGS = [
    Flag("all", BOOL, "", "a"),
    Flag("quiet", BOOL, "", "q"),
    Flag("file", STRING, "", "f"),
    Flag("env", STRINGS, ""),
    Flag("replicas", UINT, ""),
    Flag("certexpiry", DURATION, ""),
]


@pytest.mark.parametrize(
    ("words", "values", "arguments"),
    [
        (["x", "--file", "a", "y"], {"file": "a"}, ["x", "y"]),
        (["--file=a=b"], {"file": "a=b"}, []),
        (["--file="], {"file": ""}, []),
        (["-f", "a"], {"file": "a"}, []),
        (["-fa"], {"file": "a"}, []),
        (["-f=a"], {"file": "a"}, []),
        (["-aq"], {"all": True, "quiet": True}, []),
        (["-aqf", "x"], {"all": True, "quiet": True, "file": "x"}, []),
        (["--all=false", "x"], {"all": False}, ["x"]),
        (["-a=false"], {"all": False}, []),
        (["--all", "false"], {"all": True}, ["false"]),
        (["--", "--all"], {}, ["--all"]),
        (["--file", "--all"], {"file": "--all"}, []),
        (["--env", "A=1,B=2", "--env", "C=3"], {"env": ["A=1", "B=2", "C=3"]}, []),
        (["--env", ""], {"env": []}, []),
        (["--replicas", "1", "--replicas", "0"], {"replicas": 0}, []),
        (["--certexpiry", "1m"], {"certexpiry": 60 * 10**9}, []),
        (["-"], {}, ["-"]),
    ],
)
def test_forms(words: list[str], values: dict[str, object], arguments: list[str]) -> None:
    """Flags and arguments in any order and every form. [cli 12] [cli 63]"""
    parsed = parse(words, FLAGS)
    assert (parsed.values, parsed.arguments) == (values, arguments)


def test_groups_stop_at_the_first_argument() -> None:
    """In front of a sub-command only its own words are read."""
    parsed = parse(["-a", "ls", "-q"], FLAGS, mixed=False)
    assert (parsed.values, parsed.arguments) == ({"all": True}, ["ls", "-q"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--bogus"], "unknown flag: --bogus"),
        (["--quie"], "unknown flag: --quie"),
        (["-z"], "unknown shorthand flag: 'z' in -z"),
        (["-az"], "unknown shorthand flag: 'z' in -az"),
        (["--certexpiry"], "flag needs an argument: --certexpiry"),
        (["-f"], "flag needs an argument: 'f' in -f"),
        (["---"], "bad flag syntax: ---"),
        (["--=x"], "bad flag syntax: --=x"),
        (
            ["--quiet=maybe"],
            'invalid argument "maybe" for "-q, --quiet" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (["--replicas", "-1"], 'invalid argument "-1" for "--replicas" flag: strconv.ParseUint: parsing "-1": invalid syntax'),
        (["--certexpiry", "10"], 'invalid argument "10" for "--certexpiry" flag: time: missing unit in duration "10"'),
        (
            ["--env", 'a "b,c"'],
            r'invalid argument "a \"b,c\"" for "--env" flag: parse error on line 1, column 3: bare " in non-quoted-field; '
            "put double quotes around the value and double its own",
        ),
    ],
)
def test_complaints(words: list[str], complaint: str) -> None:
    """Each mistake has its sentence. [cli 6] [cli 7] [cli 13]"""
    with pytest.raises(FlagError) as caught:
        parse(words, FLAGS)
    assert str(caught.value) == complaint


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ('"A=1,2",B=3', ["A=1,2", "B=3"]),
        ('"C=""q"""', ['C="q"']),
        (" a , b ", [" a ", " b "]),
        ("a,,b,", ["a", "", "b", ""]),
        ("", []),
        ('""', [""]),
        ("a\nb", ["a"]),
        ('"a\nb",c', ["a\nb", "c"]),
    ],
)
def test_csv(text: str, elements: list[str]) -> None:
    """Lists are one CSV record. [cli 13]"""
    assert csv_record(text) == elements


@pytest.mark.parametrize("text", ['a"', '"a"b', '"a', 'x,"y"z'])
def test_bad_csv(text: str) -> None:
    """A stray quote is an error that names its place."""
    with pytest.raises(ValueError, match=r"parse error on line 1, column \d+: "):
        csv_record(text)


def test_given_knows_what_was_there() -> None:
    """A flag with its default value counts as given; asking for the wrong type is a bug that shows."""
    given = Given({"replicas": 0, "all": False})
    assert given.any("replicas")
    assert not given.any("env", "file")
    assert given.number("replicas", 7) == 0
    assert given.text("file", "x") == "x"
    with pytest.raises(TypeError):
        given.text("replicas")
