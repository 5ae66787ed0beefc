# Two commands are all: `make demo` and `make test`. Both work on a fresh Debian
# machine; every target runs a script that says what it does and how far it is.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo test build fmt wheel test-python check-no-rebuild check-release check-cuda test-cuda report models clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## Install what is needed, fetch the models, build, play the scene
	@scripts/demo.sh $(ARGS)

test: ## Test everything that can be tested on this machine
	@scripts/test.sh

build: ## Build all crates, tests and examples, with lints
	@bash -euo pipefail -c '. scripts/env.sh; build_all'

fmt: ## Format all code
	@cargo fmt --all

models: ## Fetch the models that demo and tests use (after build)
	@bash -euo pipefail -c '. scripts/env.sh; start_models; finish_models'

wheel: ## Build the Python wheel (after build)
	@scripts/python-tests.sh wheel

test-python: ## Install the wheel in a clean environment and test it (after build)
	@scripts/python-tests.sh

check-no-rebuild: ## Check that no target compiles a registry crate again
	@scripts/check-no-rebuild.sh

check-release: ## Feature matrix, documentation, licences, source distribution, sanitizer, fuzzing
	@scripts/check-release.sh

check-cuda: ## Compile and link for an NVIDIA L4, without a card
	@scripts/check-cuda.sh

test-cuda: ## Check and measure a card: make test-cuda CAP=80|89|90
	@CAP=$(CAP) scripts/test-cuda.sh

report: ## Judge labelled rows and say how well: make report ROWS=FILE
	@test -n "$(ROWS)" || { echo "usage: make report ROWS=FILE.jsonl" >&2; exit 2; }
	@scripts/report.py target/debug/inwarden "$(ROWS)"

clean: ## Remove what was built (models stay)
	@rm -rf target .cache
