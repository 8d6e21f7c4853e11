"""Compiles the CUDA sources with g++ against the emulator of this folder, by ninja."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
FOLDER = ROOT / "build" / "cuda_on_cpu"
# what the host code of the CUDA operators needs of torch's headers
TARGET = "-DUSE_CUDA -DTORCH_TARGET_VERSION=0x020a000000000000ULL"
UNDEFINED = "alignment,bounds,integer-divide-by-zero,shift,signed-integer-overflow"
SANITIZERS = f"-fsanitize=address,{UNDEFINED} -fno-sanitize-recover=all"
# what each variant adds to the flags, for the CUDA sources and for the emulator
VARIANTS = {
    "races": ("-fsanitize=thread --param tsan-instrument-func-entry-exit=0", "-DRACES"),
    "address": (SANITIZERS, "-DASAN"),
}


def translated(text: str, number: int) -> str:
    """A CUDA source as g++ compiles it; its shared variables are numbered from `number` on."""

    def declaration(match: re.Match[str]) -> str:
        nonlocal number
        declared = []
        for name, dimensions in re.findall(r"(\w+)((?:\[[^\]]*\])*)", match[2]):
            kind = f"std::remove_reference_t<{match[1]}{dimensions}>"
            where = f"emulator::shared_variable({number}, sizeof({kind}))"
            declared.append(f"auto& {name} = *static_cast<{kind}*>({where});")
            number += 1
        return " ".join(declared)

    text = re.sub(
        r"extern __shared__ (\w+) (\w+)\[\];",
        r"\1* \2 = static_cast<\1*>(emulator::dynamic_shared());",
        text,
    )
    text = re.sub(r"__shared__ ([\w:]+) ([^;]+);", declaration, text)
    return text.replace("(pixelkernels, CUDA, m)", "(pixelkernels, CPU, m)")


def write_if_changed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def library(variant: str) -> Path:
    """The library that registers the CUDA operators for CPU tensors."""
    return FOLDER / variant / "cuda_on_cpu.so"


def build(variant: str) -> None:
    source, csrc, out = ROOT / "csrc", FOLDER / "csrc", FOLDER / variant
    for i, path in enumerate(sorted(source.rglob("*"))):
        if path.suffix in (".cu", ".cuh", ".h"):
            write_if_changed(csrc / path.relative_to(source), translated(path.read_text(), 100 * i))
    torch_folder = Path(torch.__file__).parent
    # uninitialised variables get a pattern; nvcc warns of what g++ would
    flags = "-std=c++17 -O2 -g1 -fPIC -fvisibility=hidden -ftrivial-auto-var-init=pattern -w"
    instrumented, informed = VARIANTS[variant]
    linked = SANITIZERS if variant == "address" else ""
    cxx = os.environ.get("CXX", "g++")
    lines = [
        "rule compile",
        f"  command = {cxx} -x c++ {flags} $sanitizer -I{HERE}/include"
        f" -isystem {torch_folder}/include -I{csrc} {TARGET} -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = {cxx} -shared {linked} -Wl,-Bsymbolic $in -o $out"
        f" -L{torch_folder}/lib -ltorch -ltorch_cpu -lc10",
    ]
    objects = []
    emulator = [path for path in HERE.glob("*.cpp") if path.stem != "races" or variant == "races"]
    for path in [*sorted(csrc.glob("*/cuda/*.cu")), *emulator]:
        objects.append(out / f"{path.parent.parent.name}.{path.stem}.o")
        sanitizer = informed if path in emulator else instrumented
        lines += [f"build {objects[-1]}: compile {path}", f"  sanitizer = {sanitizer}"]
    lines += [f"build {library(variant)}: link {' '.join(map(str, objects))}", ""]
    write_if_changed(out / "build.ninja", "\n".join(lines))
    command = [Path(sys.executable).parent / "ninja", "-C", out, "--quiet"]
    subprocess.run(command, check=True)
