# Needs GNU make, a POSIX shell and Python 3.11 or newer; a C compiler only for the native samples.
# All that is installed goes into .venv, all that is built into build, dist and samples/build.

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
export PYTHON
# Wheels, archives and the zipapp carry this time instead of the clock's: equal input, equal bytes.
export SOURCE_DATE_EPOCH ?= 1704067200
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Which tests to run and by how many workers (many only wait for a process that they watch);
# arguments of the measurements; how many captures `soak` kills, how often it attaches a tracer and
# asks an allocator; for how many seconds `real` traces.
TESTS :=
WORKERS := 4
ARGS :=
KILLS := 200
REQUESTS := 200
CYCLES := 1000
SECONDS := 30

# Real programs and servers, one by one: run by `real` only.
REAL := $(addprefix tests/live/test_, $(addsuffix .py, trace_real trace_environments trace_tools \
    traced_python inside_real_servers))

COLLECTOR_SIDE := bundle_spec/leakcase_bundle collector/leakcase_collector
SCRIPTS := $(wildcard bundle_spec/*.py packaging/*.py bench/*.py)
# The one is seen by type checkers only, the other is what vermin takes bytes.decode for.
NOT_OLD := --exclude typing.dataclass_transform --exclude str.decode

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 24

setup: $(VENV)/tools.stamp ## install everything for development into .venv (done once)

demo: $(VENV)/leakcase.stamp ## watch a really leaking program for 45 s and say what leaks
	@$(PY) packaging/demo.py

test: $(VENV)/tools.stamp ## run the test suite; what takes minutes has a target of its own
	$(PY) -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder -m "not slow" $(TESTS)

check: $(VENV)/tools.stamp ## lint, formatting, types, oldest Python, rules of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy $(SCRIPTS)
	$(BIN)/mypy $(wildcard samples/*.py)
	$(BIN)/vermin --quiet --no-tips --violations $(NOT_OLD) --target=3.9- $(COLLECTOR_SIDE)
	$(PY) -m pytest -q tests/architecture

native: ## compile the collector's C code in place; without a compiler Python does the same
	@$(or $(wildcard $(PY)),python3) hatch_build.py

bpf: ## compile the kernel's side of tracing by clang 14; what it makes is kept in git
	@$(or $(wildcard $(PY)),python3) packaging/bpf.py

dist: wheels pyz elf ## build the wheels, the sdist, leakcase-collect.pyz and the ELF into dist

wheels: $(VENV)/tools.stamp
	$(PY) -m build --no-isolation --outdir dist .
	$(PY) -m build --no-isolation --wheel --outdir dist collector

pyz: $(VENV)/tools.stamp
	$(PY) packaging/pyz.py dist/leakcase-collect.pyz

elf: $(VENV)/tools.stamp
	$(PY) packaging/elf.py dist/leakcase-collect

bench: $(VENV)/tools.stamp ## measure the budgets: CPU, memory, size of a case, time to analyze
	$(PY) bench/budgets.py $(ARGS)
	$(PY) bench/heap_readers.py $(ARGS)
	$(PY) bench/tracing.py $(ARGS)

fuzz: $(VENV)/tools.stamp ## feed the reader 100,000 hostile inputs
	$(PY) bench/fuzz_reader.py $(ARGS)

accuracy: $(VENV)/tools.stamp ## judge growth on many runs of programs with known truth
	$(PY) bench/accuracy.py $(ARGS)

real: $(VENV)/tools.stamp ## look into and trace servers and programs of many languages
	LEAKCASE_TRACED_SECONDS=$(SECONDS) $(PY) -m pytest -n $(WORKERS) --dist loadscope -rfEP \
	    --no-loadscope-reorder $(REAL) $(TESTS)

attribution: $(VENV)/tools.stamp ## see how often the function that leaks is named first
	$(PY) bench/attribution.py $(ARGS)

soak: $(VENV)/tools.stamp ## kill 200 captures, attach a tracer 1,000 times, ask allocators 200 times
	LEAKCASE_KILLS=$(KILLS) LEAKCASE_CYCLES=$(CYCLES) $(PY) -m pytest \
	    tests/live/test_killed.py tests/live/test_tracer_soak.py tests/live/test_trace_cut_short.py
	LEAKCASE_REQUESTS=$(REQUESTS) $(PY) -m pytest tests/collector/attach tests/live/test_asked.py

clean: ## remove what was built; .venv stays
	rm -rf build dist samples/build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/leakcase.stamp: pyproject.toml packaging/make_venv.sh
	@echo "setting up $(VENV): some libraries are downloaded, once"
	@packaging/make_venv.sh $(VENV)
	@$(PY) -m pip install --quiet --editable .
	@touch $@

$(VENV)/tools.stamp: $(VENV)/leakcase.stamp
	@echo "adding the tools for tests and packaging to $(VENV), once"
	@$(PY) -m pip install --quiet --editable '.[test,check,dist]'
	@touch $@

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check native bpf dist wheels pyz elf bench fuzz accuracy attribution real soak clean
