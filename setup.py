"""Builds the two compiled libraries with ninja: pixelkernels._C for the CPU and
pixelkernels/_cuda.so for CUDA.

Both use LibTorch's stable ABI, so one binary serves every torch from 2.10 on. Of torch itself the
headers and the libraries to link with are enough: it is not imported. Environment:

  PIXELKERNELS_EXTENSION=0   build no compiled library: backends eager and triton only
  PIXELKERNELS_CUDA=0|1      leave the CUDA library out | fail without nvcc
                             (default: built where nvcc is found)
  TORCH_CUDA_ARCH_LIST       as everywhere, such as "8.0;9.0;12.0+PTX"
  CUDA_HOME                  the toolkit, where nvcc is not on PATH
  CXXFLAGS, LDFLAGS          what else the CPU library is compiled and linked with
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

from build_backend import (
    PYPROJECT,
    TORCH_TARGET,
    find_compiler,
    find_torch,
    is_compiled,
    require_all,
)

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'^version = "(.+)"', PYPROJECT, re.M)[1]
# a wheel has machine code for those that the toolkit knows, and PTX of the last of them
WHEEL_ARCHITECTURES = ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
# the baseline serves old machines alone, and takes longest to compile
CAPABILITY_FLAGS = {"baseline": "-O2"}
if platform.machine() in ("x86_64", "AMD64"):
    CAPABILITY_FLAGS["avx2"] = "-mavx2 -mfma -mf16c"
    # a wide load of what two narrow stores wrote waits for both
    CAPABILITY_FLAGS["avx512"] = (
        "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=256"
    )
    # what extends the kernels of avx512
    CAPABILITY_FLAGS["amx"] = CAPABILITY_FLAGS["avx512"] + " -mamx-tile -mamx-bf16"


def known_capabilities() -> dict[str, str]:
    """CAPABILITY_FLAGS that the compiler knows: GCC has AMX from version 11 on."""
    command = [*shlex.split(find_compiler()), *CAPABILITY_FLAGS.get("amx", "").split()]
    tried = subprocess.run([*command, "-E", "-x", "c++", os.devnull], capture_output=True)
    return {
        name: flags
        for name, flags in CAPABILITY_FLAGS.items()
        if name != "amx" or tried.returncode == 0
    }


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")
    return nvcc if os.environ.get("PIXELKERNELS_CUDA") != "0" else None


def extensions() -> list[Extension]:
    """What will be built, said in one line each."""
    if not is_compiled():
        print("pixelkernels: building no compiled library: backends eager and triton only")
        return []
    found = [Extension("pixelkernels._C", sources("*/cpu/*.cpp", "common/*.cpp", "module.cpp"))]
    nvcc = find_nvcc()
    if nvcc:
        found.append(Extension("pixelkernels._cuda", sources("*/cuda/*.cu")))
        print(f"pixelkernels: building the CPU library, and the CUDA library with {nvcc}")
    elif os.environ.get("PIXELKERNELS_CUDA") == "1":
        sys.exit("pixelkernels: PIXELKERNELS_CUDA=1, but there is no nvcc on PATH or in CUDA_HOME")
    else:
        print(
            "pixelkernels: building the CPU library only, without CUDA (no nvcc, or switched off)"
        )
    return found


def sources(*patterns: str) -> list[str]:
    return sorted(
        str(p.relative_to(ROOT)) for pattern in patterns for p in ROOT.glob(f"csrc/{pattern}")
    )


def cuda_release(nvcc: str) -> str:
    return re.search(r"release ([\d.]+)", subprocess.check_output([nvcc, "--version"], text=True))[
        1
    ]


def cuda_architectures(nvcc: str, developer: bool) -> list[str]:
    """Those asked for; else, for a developer, the GPU's here (or 9.0); else the wheel's."""
    asked = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if not asked and developer:
        if not shutil.which("nvidia-smi"):
            return ["9.0"]
        query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        listed = subprocess.run(query, stdout=subprocess.PIPE, text=True).stdout
        return re.findall(r"^\d+\.\d+$", listed, re.M)[:1] or ["9.0"]
    compiles = subprocess.check_output([nvcc, "--list-gpu-arch"], text=True).split()
    names = re.split(r"[;\s]+", asked.strip()) if asked else WHEEL_ARCHITECTURES
    known = [name for name in names if f"compute_{number(name)}" in compiles]
    return known if asked else [*known[:-1], f"{known[-1]}+PTX"]


def number(architecture: str) -> str:
    return architecture.removesuffix("+PTX").replace(".", "")


class NinjaBuild(build_ext):
    """Writes one build.ninja for both libraries, so that later builds recompile what changed."""

    def get_ext_filename(self, fullname: str) -> str:
        # the CUDA library is no Python module: torch.ops.load_library loads it by its name
        if fullname.endswith("_cuda"):
            return os.path.join(*fullname.split(".")) + ".so"
        return super().get_ext_filename(fullname)

    def run(self) -> None:
        # setuptools clears `inplace` while it builds
        self.developer = bool(self.inplace or getattr(self, "editable_mode", False))
        super().run()

    def build_extensions(self) -> None:
        import ninja

        require_all()
        # pip would give an editable build an empty folder each time
        build = ROOT / "build" if self.developer else Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        (build / "build.ninja").write_text(self.rules(build))
        jobs = os.environ.get("MAX_JOBS")
        command = [Path(ninja.BIN_DIR) / "ninja", "-C", build, *(["-j", jobs] if jobs else [])]
        if subprocess.run(command).returncode:
            sys.exit("pixelkernels: the build ended with the error of the compiler printed above")

    def rules(self, build: Path) -> str:
        import pybind11

        nvcc = find_nvcc()
        architectures = cuda_architectures(nvcc, self.developer) if nvcc else []
        torch, torch_version = find_torch()
        capabilities = known_capabilities()
        # Only what binds to Python sees its headers: everything else has the same command under
        # every Python, so that their wheels share it. torch ships a pybind11 of its own, which
        # refuses the stable ABI: ours goes first.
        ours, headers = pybind11.get_include(), sysconfig.get_path("include")
        python = f"-isystem {ours} -isystem {headers}"
        include = f"-isystem {torch / 'include'} -I{ROOT / 'csrc'}"
        # files are named in messages as on every other machine
        python += f" -ffile-prefix-map={ours}/= -ffile-prefix-map={headers}/="
        short = [f"-ffile-prefix-map={folder}/=" for folder in (ROOT, torch.parent)]
        major, minor = TORCH_TARGET.split(".")
        defines = f"-DTORCH_TARGET_VERSION=0x{int(major):02x}{int(minor):02x}000000000000ULL"
        if "amx" in capabilities:
            defines += " -DPK_SPLIT_PRODUCTS"
        info = {
            "VERSION": VERSION,
            "TORCH_VERSION": torch_version,
            "TORCH_TARGET": TORCH_TARGET,
            "CPU_CAPABILITIES": " ".join(capabilities),
            "CUDA_VERSION": cuda_release(nvcc) if nvcc else "",
            "CUDA_ARCHITECTURES": " ".join(architectures),
        }
        facts = " ".join(f"'-DPK_{name}={value}'" for name, value in info.items())
        # nvcc does not know -Wl, but both compilers pass -Xlinker on
        libraries = f"-L{torch / 'lib'}"
        if self.developer:
            libraries += f" -Xlinker -rpath -Xlinker {torch / 'lib'}"
        # A shared libgcc older than GCC 12 lacks the conversions of _Float16: they are linked
        # statically. Exceptions need the one shared unwinder, which is searched after that.
        system = (
            "-undefined dynamic_lookup" if sys.platform == "darwin" else "-lgcc -Wl,--no-as-needed"
        )
        codes = " ".join(
            f"-gencode arch=compute_{number(a)},code=sm_{number(a)}"
            + (
                f" -gencode arch=compute_{number(a)},code=compute_{number(a)}"
                if "+PTX" in a
                else ""
            )
            for a in architectures
        )
        lines = [
            f"cxx = {find_compiler()}",
            f"nvcc = {nvcc}",
            f"common = -std=c++17 -O3 {defines} {include}",
            "flags = $common -fPIC -fvisibility=hidden -Wall -Wno-psabi"
            # neither changes a result; without them fewer loops are vectorised
            f" -fno-math-errno -fno-trapping-math {' '.join(short)}",
            f"asked = {os.environ.get('CXXFLAGS', '')}",
            f"cudaflags = $common -Xcompiler -fPIC,-fvisibility=hidden,{','.join(short)}"
            " --expt-relaxed-constexpr"
            # another release in the same place makes another command, and so compiles anew
            f" -DUSE_CUDA -DPK_CUDA_RELEASE={info['CUDA_VERSION']} {codes}",
            f"libraries = {libraries} -ltorch -ltorch_cpu",
            "rule cxx",
            "  command = $cxx -MMD -MF $out.d $first $flags $extra $asked -c $in -o $out",
            "  description = compile $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "rule nvcc",
            "  command = $nvcc -MMD -MF $out.d $cudaflags -c $in -o $out",
            "  description = compile $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "rule link",
            f"  command = $cxx -shared $in -o $out {system} $libraries"
            f" {os.environ.get('LDFLAGS', '')}",
            "rule link_cuda",
            # nothing on the device is linked, and where it looked would stand in the library
            "  command = $nvcc -shared -nodlink -cudart static $in -o $out"
            " -Xlinker --no-as-needed $libraries",
        ]
        for extension in self.extensions:
            objects = []
            is_cuda = extension.name.endswith("_cuda")
            for source in extension.sources:
                obj = build / f"{source}.o"
                lines.append(f"build {obj}: {'nvcc' if is_cuda else 'cxx'} {ROOT / source}")
                if source.endswith(("module.cpp", "numpy.cpp")):
                    lines.append(f"  first = {python}")
                if source.endswith("module.cpp"):
                    lines.append(f"  extra = {facts}")
                objects.append(obj)
            for name, capability_flags in capabilities.items():
                kernels = "amx" if name == "amx" else "simd"
                for source in [] if is_cuda else sources(f"*/{kernels}/*.cpp"):
                    obj = build / f"{source}.{name}.o"
                    lines.append(f"build {obj}: cxx {ROOT / source}")
                    lines.append(f"  extra = -DPK_ISA={name} {capability_flags}")
                    objects.append(obj)
            target = Path(self.get_ext_fullpath(extension.name)).resolve()
            target.parent.mkdir(parents=True, exist_ok=True)
            rule = "link_cuda" if is_cuda else "link"
            lines.append(f"build {target}: {rule} {' '.join(map(str, objects))}")
        return "\n".join([*lines, ""])


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": NinjaBuild})
