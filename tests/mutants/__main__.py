"""Plant each error in a copy of the repository and run the tests that need no GPU.

    python -m tests.mutants [WORD]

With WORD only the mutants whose kind or path has it. Prints a line per mutant: the lane that sees
it and what it says. `races` and `address` are the CUDA kernels on the emulated GPU, `interpreter`
runs Triton's kernels. The exit status is 1 if fewer than 90 % are seen.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.helpers import ROOT

from . import Mutant, cuda, triton

SHARE = 0.9
WORKERS = 2
# of a run of the tests: a mutant may loop for ever
SECONDS = 240
# what pytest returns when it could not run the tests, or found none
NO_TESTS = range(2, 6)
PROMISES = ("tests/promises/test_agreement.py", "tests/promises/test_edges.py")
OPERATIONS = {
    "distance": "(click or transform or nearest or label or pairs) and not test_sides",
    "regions": "region or loss or background or masked or push",
    "similarity": "matching or transfer or prior or pair or mutual or softmax or sums or contrast",
    "triplet": "triplet",
}


def copy_repository(folder: Path) -> None:
    """What git knows, and the compiled libraries."""
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT)
    paths = [Path(line) for line in listed.decode().splitlines()]
    paths += [path.relative_to(ROOT) for path in ROOT.glob("pixelkernels/*.so")]
    for path in paths:
        if (ROOT / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)


def lanes(mutant: Mutant) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Name, command and environment of the runs that may see the mutant."""
    families = [name for name in OPERATIONS if f"/{name}/" in mutant.path] or [
        "regions",
        "similarity",
    ]
    for family in families:
        tests = [*PROMISES, f"tests/{family}", "-k", OPERATIONS[family], "-x"]
        if mutant.path.endswith(".py"):
            # the interpreter's tests of far offsets are slow, and the only ones to see these
            far = mutant.kind == "int32 offsets"
            chosen = ["-k", "offsets"] if far else ["-m", "not slow", *tests]
            command = ["-m", "pytest", "-q", *chosen]
            yield "interpreter", command, {"TRITON_INTERPRET": "1"}
        elif family != "similarity":
            for variant in ("races", "address"):
                yield variant, ["-m", "tests.cuda_on_cpu", variant, "-s", *tests], {}


def first_message(output: str) -> str:
    found = re.search(r"^E +(\w*(?:Error|Exception).*|assert.*)$", output, re.MULTILINE)
    found = found or re.search(r"(runtime error: .*|ERROR: AddressSanitizer.*|error: .*)", output)
    return found[1][:110] if found else output.strip()[-110:].replace("\n", " ")


def seen_by(mutant: Mutant, tree: Path) -> tuple[str, str]:
    """The first lane with a failing test and its message; an empty lane if none has one."""
    for lane, command, variables in lanes(mutant):
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive", **variables}
        try:
            done = subprocess.run(
                [sys.executable, *command],
                cwd=tree,
                env=environment,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return lane, f"no end within {SECONDS} s"
        message = first_message(done.stdout + done.stderr)
        if "CalledProcessError" in done.stderr or done.returncode in NO_TESTS:
            return "", f"does not compile or has no tests: {message}"
        if done.returncode:
            return lane, message
    return "", ""


def tried(mutant: Mutant, trees: SimpleQueue[Path]) -> tuple[Mutant, str, str]:
    tree = trees.get()
    path = tree / mutant.path
    text = path.read_text()
    path.write_text(mutant.applied(text))
    found = seen_by(mutant, tree)
    path.write_text(text)
    trees.put(tree)
    return mutant, *found


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [x for x in (*cuda.MUTANTS, *triton.MUTANTS) if word in f"{x.kind} {x.path}"]
    seen = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for i in range(WORKERS):
            copy_repository(Path(folder) / str(i))
            trees.put(Path(folder) / str(i))
        for mutant, lane, message in pool.map(lambda mutant: tried(mutant, trees), chosen):
            seen += bool(lane)
            where = f"{mutant.path}:{mutant.line((ROOT / mutant.path).read_text())}"
            print(f"{lane or 'NOT SEEN':12} {mutant.kind:20} {where:44} {message}", flush=True)
    print(f"{seen} of {len(chosen)} seen")
    return int(seen < SHARE * len(chosen))


if __name__ == "__main__":
    sys.exit(main())
