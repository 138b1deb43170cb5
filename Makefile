# Everything runs in .venv, which the first target that needs it sets up; after that only gpu-wheels touches the network.
PYTHON ?= python3
GPU_PYTHON ?= 3.12
BIN := .venv/bin
INSTALLED := .venv/.installed
RUNS := .venv/.runs
# More than there are cores, since some tests wait for processes of their own; eight at most.
TEST_WORKERS := $(shell n=$$(( 2 * $$(getconf _NPROCESSORS_ONLN) )); echo $$(( n < 8 ? n : 8 )))
# Hundreds of the tests' processes import the package: compiled once, also where the caller keeps no bytecode.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test bench check speed-cpu speed-cuda gpu-wheels docs-images docs-families clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' $(MAKEFILE_LIST)

demo: $(RUNS) ## the whole job on the embedded model and images
	$(BIN)/tomebench demo

test: $(INSTALLED) ## run the tests on all cores (PYTEST_ARGS="-m slow" chooses others; on a GPU: "-m gpu -n 0")
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

bench: $(INSTALLED) ## the tests that judge time, on a machine that does nothing else: an hour
	$(BIN)/python -m pytest -m bench -s $(PYTEST_ARGS)

check: $(INSTALLED) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

speed-cpu: $(RUNS) ## the CPU speed study: an hour and a half on a machine that does nothing else
	@for config in configs/speed_cpu_*.yaml; do \
		name=$$(basename $$config .yaml); \
		$(BIN)/tomebench sweep --config $$config --out results/$$name.keep || exit $$?; \
	done

speed-cuda: $(RUNS) ## the CUDA speed study: up to two days on one GPU
	configs/speed_cuda.sh $(BIN)/tomebench

gpu-wheels: $(INSTALLED) ## what a GPU machine without network lacks, into .gpu-wheels (GPU_PYTHON=3.12 is its Python)
	$(BIN)/python tests/gpu/wheels.py --python $(GPU_PYTHON)

docs-images: $(RUNS) ## the pictures of the README, from a run of the demo
	$(BIN)/python tests/docs/draw.py

docs-families: $(RUNS) ## the table of timm's families in the page on models
	$(BIN)/python tests/docs/families.py

clean: ## remove .venv and caches, keep results
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# What a run needs, and what the tests and checks need besides.
$(RUNS): EXTRAS = report
$(INSTALLED): EXTRAS = report,hf,probe,test,lint

$(RUNS) $(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "tomebench needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $(RUNS) $@
