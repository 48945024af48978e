"""Generate the Python side of proto/ into src/pyswarm/api/, or say whether the committed code is stale.

`python tools/genproto.py` writes; `python tools/genproto.py --check` changes nothing and exits 1 when a file differs.

protoc names Python modules after the proto paths, and `docker.swarmkit.v1` would collide with the Docker SDK's package `docker`; so the
imports are rewritten to `pyswarm.api.swarmkit`, `pyswarm.api.private` and `pyswarm.api.csi`. The descriptors keep their real names.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
API = ROOT / "src" / "pyswarm" / "api"
PACKAGES = {"docker/swarmkit/v1": "swarmkit", "pyswarm/v1": "private", "csi/v1": "csi"}
BANNER = '"""Generated from proto/ by tools/genproto.py: do not edit."""\n'


def run_protoc(out: pathlib.Path) -> None:
    """Compile every proto file into `out`: messages, stubs for the type checker, gRPC clients."""
    files = sorted(str(p.relative_to(PROTO)) for p in PROTO.rglob("*.proto"))
    flags = ["--python_out", "--mypy_out", "--grpc_python_out", "--mypy_grpc_out"]
    flags_out = [f"{f}={out}" for f in flags] + ["--include_imports", f"--descriptor_set_out={out / 'all.pb'}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(PROTO), *flags_out, *files]
    plugins = pathlib.Path(sys.executable).parent
    subprocess.run(command, check=True, env={"PATH": f"{plugins}:/usr/bin:/bin"}, stderr=subprocess.DEVNULL)


def rewrite(text: str) -> str:
    """Point imports of generated modules at the package they live in."""
    for path, package in PACKAGES.items():
        dotted = path.replace("/", ".")
        text = text.replace(f"from {dotted} import", f"from pyswarm.api.{package} import")
        text = re.sub(rf"\b{re.escape(dotted)}\.(\w+_pb2)", rf"pyswarm.api.{package}.\1", text)
    return text


def has_services(text: str) -> bool:
    """Whether a generated gRPC module offers anything."""
    return "class " in text


def facade(descriptors: descriptor_pb2.FileDescriptorSet) -> str:
    """One module that names every public message and enum: `from pyswarm.api import v1 as api`."""
    lines = [BANNER, "from __future__ import annotations", "", "from pyswarm.api.enums import quicken as _quicken"]
    enums: list[str] = []
    for file in sorted(descriptors.file, key=lambda f: f.name):
        if file.package != "docker.swarmkit.v1":
            continue
        module = pathlib.PurePath(file.name).stem + "_pb2"
        names = sorted([m.name for m in file.message_type] + [e.name for e in file.enum_type])
        lines.append(f"from pyswarm.api.swarmkit.{module} import (")
        lines += [f"    {n} as {n}," for n in names]
        lines.append(")")
        enums += sorted(e.name for e in file.enum_type)
    lines += ["", f"_quicken({', '.join(enums)})"]
    return "\n".join(lines) + "\n"


def render() -> dict[pathlib.Path, str]:
    """Every generated file and its text."""
    files: dict[pathlib.Path, str] = {}
    with tempfile.TemporaryDirectory() as tmp:
        out = pathlib.Path(tmp)
        run_protoc(out)
        for path, package in PACKAGES.items():
            files[API / package / "__init__.py"] = BANNER
            for source in sorted((out / path).iterdir()):
                text = rewrite(source.read_text())
                if "_pb2_grpc" in source.name and not has_services((source.parent / (source.name.split(".")[0] + ".py")).read_text()):
                    continue
                files[API / package / source.name] = text
        descriptors = descriptor_pb2.FileDescriptorSet.FromString((out / "all.pb").read_bytes())
    files[API / "v1.py"] = facade(descriptors)
    return files


def main() -> int:
    """Write the generated files, or compare them with --check."""
    files = render()
    if "--check" in sys.argv[1:]:
        stale = [p for p, text in files.items() if not p.exists() or p.read_text() != text]
        known = {p for package in PACKAGES.values() for p in (API / package).glob("*.py*")}
        stale += sorted(known - set(files))
        for path in stale:
            print(f"stale: {path.relative_to(ROOT)}; run `make proto`")
        return 1 if stale else 0
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
