# `make demo` and `make test` need nothing but this folder, Python 3.11+, Rust 1.88+ and a C compiler.
# Compiled Rust lives outside the folder, in one place that may be deleted at any time.
SHELL := /bin/bash
CACHE := $(or $(AIOIROH_CACHE),$(HOME)/.cache/aioiroh)
export CARGO_TARGET_DIR := $(CACHE)/target
export AIOIROH_CACHE := $(CACHE)
BIN := .venv/bin
# The tests start hundreds of processes; none shall compile the package again.
unexport PYTHONDONTWRITEBYTECODE
# Where rustup puts a toolchain, for shells that have not read their profile.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.PHONY: help demo test sim native ours lint types imports clippy stubs rust-test docs wheel upstream targets bench lab fmt clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: native ## send a real folder between two processes and compare every byte
	$(BIN)/python tools/demo.py

test: native ## all Python tests, those against upstream's programs too
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

sim: native ## a thousand random networks with troubles, in virtual time (SEEDS=n for another number)
	AIOIROH_SEEDS=$(or $(SEEDS),1000) $(BIN)/python -m pytest -q -n auto tests/sim/test_faults.py -k random_troubles

.venv/.ready: pyproject.toml constraints.txt tools/setup.sh
	bash tools/setup.sh

# Cargo goes by the times of files, and for it the crates of all clones that share the folder are the same.
ours:
	@mkdir -p $(CARGO_TARGET_DIR)
	@[ "$$(cat $(CARGO_TARGET_DIR)/.clone 2>/dev/null)" = "$(CURDIR)" ] || \
		{ find rust -name '*.rs' -exec touch {} + && echo "$(CURDIR)" >$(CARGO_TARGET_DIR)/.clone; }

native: .venv/.ready ours ## build the native module and install the package, editable
	VIRTUAL_ENV=$(CURDIR)/.venv PIP_QUIET=1 PIP_CONSTRAINT=constraints.txt $(BIN)/maturin develop --release --locked --quiet

lint: .venv/.ready ## style and format of Python and Rust
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd rust && cargo fmt --check
	cd tests/interop/peer && cargo fmt --check

types: .venv/.ready ## mypy --strict
	$(BIN)/mypy --strict src tests/typing

imports: .venv/.ready ## a room imports only from rooms below it
	PYTHONPATH=src $(BIN)/lint-imports

clippy: ours ## Rust lints, warnings are errors
	cd rust && cargo clippy --release --locked --workspace --all-targets --features aioiroh-py/abi3 -- -D warnings

stubs: native ## _native.pyi against the compiled module
	$(BIN)/python -m mypy.stubtest --allowlist tools/stubtest-allowed.txt aioiroh._native

rust-test: ours ## tests of the Rust crates
	cd rust && cargo test --locked --workspace --quiet
	cd rust && cargo test --locked --quiet -p aioiroh-core --features qlog --test qlog

docs: .venv/.ready ## build the documentation into build/docs
	$(BIN)/mkdocs build --strict --quiet

wheel: .venv/.ready ours ## wheel and sdist into dist/, both installed and tried
	$(BIN)/python tools/wheel.py

upstream: .venv/.ready ## build upstream's programs that the interop tests talk to
	$(BIN)/python tools/upstream.py build

targets: ours ## it compiles for systems that no test runs on: a browser, macOS
	bash tools/targets-check.sh

bench: native ## measure against upstream and write benchmarks/README.md
	$(BIN)/python -m pip install --quiet -c constraints.txt --group bench
	$(BIN)/python tools/upstream.py build --release
	$(BIN)/python -m benchmarks

lab: native ## all pairs of NATs in network namespaces (as root, a quarter of an hour); writes docs/netlab.md
	$(BIN)/python tools/upstream.py build iroh-peer iroh-relay
	PYTHONPATH=src:tools:tests/interop $(BIN)/python tests/netlab $(LAB_ARGS)

fmt: .venv/.ready ## format everything
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .
	cd rust && cargo fmt
	cd tests/interop/peer && cargo fmt

clean: ## remove what was built here (not the cache)
	rm -rf .venv build dist src/aioiroh/*.so
