# What contributors and the build server run. `make` alone lists it.
# Needs Python >= 3.11 and make; everything else comes hashed into .venv.

.DEFAULT_GOAL := help
.PHONY: help setup test check demo docs docs-check bench storm power protocol simulate proof lock wheel clean

VENV   := .venv
PYTHON := $(VENV)/bin/python
READY  := $(VENV)/.ready
LOCKED := $(VENV)/.locked

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Compiled modules make every run after the first one quick, also where the machine's default is not to write them.
unexport PYTHONDONTWRITEBYTECODE

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with the hashed packages and stepwell itself (BASE_PYTHON= chooses the interpreter)
	@echo "$(VENV) is ready"

test: $(READY) ## run the whole test suite
	$(PYTHON) -m pytest -n 2

check: $(READY) ## lint, format, types, import contracts, links and house rules
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	@$(MAKE) --no-print-directory docs-check
	$(PYTHON) -m pytest -q tests/architecture tests/docs/test_markdown.py

demo: $(READY) ## audit the licences of the installed packages, killed in the middle and continued
	$(PYTHON) examples/licence_audit/demo.py

docs: $(READY) ## write docs/reference again from docstrings, help texts and the source
	$(PYTHON) scripts/make_reference.py

docs-check: $(READY) ## tell whether docs/reference is what the code says
	$(PYTHON) scripts/make_reference.py --check

bench: $(READY) ## measure beside the raw limit of this machine (BENCH= passes arguments, such as --quick)
	$(PYTHON) -m bench $(BENCH)

storm: $(READY) ## run the storms long (STORM_SCALE= times as long as in the suite, 10 if not given; STORM= chooses a folder, or release)
	STORM_SCALE=$(or $(STORM_SCALE),10) $(PYTHON) -m pytest -m storm -s -o faulthandler_timeout=0 \
		$(if $(filter release,$(STORM)),tests/acceptance/storm/test_storm.py,$(STORM))

power: $(READY) ## fail the power, the disk or the process at every write and sync (POWER_SCALE= times the workloads, 25 if not given)
	POWER_SCALE=$(or $(POWER_SCALE),25) $(PYTHON) -m pytest tests/integration/sqlite/power -o faulthandler_timeout=0

protocol: $(READY) ## look at every state of the run protocol, millions of them (part of `make storm` too)
	STORM_SCALE=$(or $(STORM_SCALE),10) $(PYTHON) -m pytest tests/protocol -m storm -s -q -o faulthandler_timeout=0

simulate: $(READY) ## simulate engine and store (SEEDS= how many, 2000 if not given; FROM= the first; REPLAY= one, told in full)
	$(PYTHON) -m tests.simulation $(if $(REPLAY),--replay $(REPLAY),--seeds $(or $(SEEDS),2000) --from $(or $(FROM),0))

PROOF := tests/simulation tests/protocol tests/histories tests/integration/sqlite/power tests/docs/test_faults.py \
	$(addprefix tests/acceptance/,crashes storm poison zombies clock histories)

proof: $(READY) ## run the layers that RELIABILITY.md is about, alone (TIMES= so many times in a row, 1 if not given)
	@for time in $$(seq $(or $(TIMES),1)); do \
		echo "time $$time of $(or $(TIMES),1)"; $(PYTHON) -m pytest -q -n 2 $(PROOF) || exit 1; done

lock: ## pin requirements/*.txt again (needs uv; UPGRADE=1 moves to newer releases, at least a week old)
	@command -v uv >/dev/null || { echo "error: make lock needs uv on PATH" >&2; exit 1; }
	$(PIN) -o requirements/core.txt
	$(PIN) -o requirements/dev.txt --all-extras --group dev -c requirements/core.txt

wheel: $(READY) ## build the wheel and the source archive into dist/
	@mkdir -p dist
	$(PYTHON) -c "import uv_build as b; print(b.build_sdist('dist')); print(b.build_wheel('dist'))"

clean: ## remove the environment, caches and builds (runs in .stepwell stay)
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests examples bench scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

PIN = UV_SYSTEM_CERTS=1 uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--exclude-newer "7 days" --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) pyproject.toml

$(LOCKED): requirements/dev.txt scripts/make-venv.sh
	@scripts/make-venv.sh $(VENV) requirements/dev.txt
	@touch $@

# The build backend is locked too, so nothing is fetched here.
INSTALL_OPTIONS := --quiet --no-index --no-deps --no-build-isolation --editable .

$(READY): $(LOCKED) pyproject.toml
	@if $(PYTHON) -m pip --version >/dev/null 2>&1; \
	then $(PYTHON) -m pip install --disable-pip-version-check $(INSTALL_OPTIONS); \
	else uv pip install --python $(PYTHON) $(INSTALL_OPTIONS); fi
	@$(PYTHON) -m compileall -q src
	@touch $@
