# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
OUT ?= gpu-check-out

.PHONY: build demo test test-all test-inductor test-oldest cuda-on-cpu mutants fuzz sanitize lint format gpu-check bench sweep gate report clean

# torch first: the project is built against the headers of the torch that will run it
$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch torchvision triton numpy setuptools wheel
	$(PIP) ninja pybind11 packaging pytest pytest-benchmark hypothesis scipy scikit-image pillow \
	  tqdm matplotlib torchmetrics pytest-xdist ruff mypy basedpyright clang-format \
	  opencv-python-headless edt
	touch $@

build: $(VENV)/.installed
	$(PIP) --no-build-isolation --no-deps --config-settings editable_mode=compat -e .

demo: build
	$(BIN)/python -m examples.demo

PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadgroup --durations=20
# Triton's kernels on the CPU, by its interpreter, which holds for a whole process
INTERPRETED := TRITON_INTERPRET=1 $(PYTEST)

# every operation, backend and promise in small: at most five minutes after the build
test: build
	$(PYTEST) -m "not slow"
	$(INTERPRETED) -m "not slow"
	$(BIN)/python -m benchmarks.report --check
	$(BIN)/python -m benchmarks.plots --check

# what `make test` leaves out: all cases and sizes, compilation ahead of time, large memory, fuzz
test-all: build cuda-on-cpu
	$(PYTEST) -m "slow and not inductor"
	$(INTERPRETED) -m "slow and not inductor"

# every function compiled by Inductor on eager and with dynamic shapes, and AOTInductor's packages
test-inductor: build
	$(PYTEST) -m inductor

OLDEST := .venv-oldest
$(OLDEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check torch==2.10.0 torchvision numpy scipy \
	  scikit-image pillow torchmetrics tqdm matplotlib pytest pytest-xdist hypothesis
	touch $@

# what the oldest supported torch compiles and exports
test-oldest: build $(OLDEST)/.installed
	OMP_WAIT_POLICY=passive $(OLDEST)/bin/python -m pytest -n 2 tests/promises/test_operators.py \
	  tests/promises/test_inductor.py tests/promises/test_export.py $(ARGS)

# the CUDA kernels on an emulated GPU
cuda-on-cpu: build
	$(BIN)/python -m tests.cuda_on_cpu

# errors planted in the GPU sources, and which of the tests without a GPU see them; half an hour
mutants: build
	$(BIN)/python -m tests.mutants

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format -i

# other libraries to compare with; one that cannot be installed is reported as not measured
$(VENV)/.peers: $(VENV)/.installed
	-$(PIP) faiss-cpu pykeops pytorch-metric-learning
	touch $@

# short enough to end, with install and build, in 20 minutes; committed results come from benchmarks.run --full
bench: build $(VENV)/.peers
	$(BIN)/python -m benchmarks.run --minutes 9

# each crash, hang, wrong result or unclear error with the call that did it
fuzz: build
	OMP_WAIT_POLICY=passive $(BIN)/python -m tests.fuzz --calls 20000

# the CPU library a second time, in build-sanitize/
sanitize: build
	$(BIN)/python -m tools.sanitize

# cases that are slower than eager, dear for their size, or slowed down by their values; ten minutes
sweep: build
	$(BIN)/python -m benchmarks.sweep

gate: build
	$(BIN)/python -m benchmarks.gate

report: build
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.plots

# STAGES: some of them, such as "build test" or "bench regions"
gpu-check:
	bash tools/gpu_check.sh $(OUT) $(STAGES)

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) sphinx myst-parser pydata-sphinx-theme sphinx-design sphinx-copybutton latex2mathml ziamath fonttools
	touch $@

.PHONY: docs docs-shots

# into site/, with warnings as errors
docs: $(VENV)/.docs
	$(BIN)/sphinx-build -E -a -W -n -q --keep-going -d build/doctrees docs site

# pictures of the site in a browser, into docs-shots/
docs-shots: docs
	$(BIN)/python -m tools.docs_shots

# CUDA: the release of a toolkit (13.0), none (only the CPU library) or pure (no library)
CUDA ?= none
PYTHONS ?= $(PYTHON)
TORCHES ?= 2.10.0 newest

.PHONY: sdist wheel wheel-test install-test

sdist:
	$(PYTHON) -m tools.wheels.build sdist

# into dist/, one per interpreter in PYTHONS
wheel:
	$(firstword $(PYTHONS)) -m tools.wheels.build $(CUDA) $(PYTHONS)

# WHEEL: wheels for the interpreter PYTHON, tried under every torch in TORCHES
wheel-test:
	$(PYTHON) -m tools.wheels.trial $(WHEEL) --torch $(TORCHES)

# the sdist by `pip install .`, in an environment that has torch and nothing to build with; only the
# optimisation is lower, to compile in less time
install-test: $(VENV)/.installed sdist
	PIXELKERNELS_CUDA=0 CXXFLAGS=-O1 $(BIN)/python -m tools.wheels.trial dist/*.tar.gz --torch here

clean:
	rm -rf build build-sanitize demo-out train-out $(VENV) $(OLDEST) pixelkernels/*.so
