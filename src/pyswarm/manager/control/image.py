"""The grammar of image references (spec/control-api, section 6.4)."""

from __future__ import annotations

import re

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAME = rf"{_DOMAIN}/{_COMPONENT}(?:/{_COMPONENT})*"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(rf"({_NAME})(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@({_DIGEST}))?")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_HEX = re.compile(r"[a-f0-9]+")
_NAME_LENGTH = 255
_LONGEST = 600
_HUB = "docker.io"


def is_reference(image: str) -> bool:
    """Whether the text names an image: repository, optional tag, optional digest, with Docker Hub's abbreviations."""
    if len(image) > _LONGEST or _IDENTIFIER.fullmatch(image):
        return False
    domain, remainder = _split(image)
    path = remainder.partition(":")[0]
    if path != path.lower():
        return False
    match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    return match is not None and len(match[1]) <= _NAME_LENGTH and (match[2] is None or _digest_ok(match[2]))


def _split(image: str) -> tuple[str, str]:
    """Domain and the rest, completed as the Docker Hub's short names need it."""
    first, slash, rest = image.partition("/")
    given = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    domain, remainder = (first, rest) if given else (_HUB, image)
    if domain == "index.docker.io":
        domain = _HUB
    if domain == _HUB and "/" not in remainder:
        remainder = f"library/{remainder}"
    return domain, remainder


def _digest_ok(digest: str) -> bool:
    algorithm, _, text = digest.partition(":")
    return len(text) == _DIGEST_LENGTHS.get(algorithm) and _HEX.fullmatch(text) is not None
