# make run    fetch, convert, build, and run the stack in the foreground on port 5000
# make test   fetch, convert, build, and run every test
# make check  formatting, lints, licences and advisories
#
# Cargo decides what is up to date; these targets only put the steps in order.

SHELL := /bin/bash
.DEFAULT_GOAL := run
.PHONY: run test check libtorch onnx model build fmt coverage bench verify clean needs

PRECISION ?= $(or $(MUSE_PRECISION),f32)
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/muse
ONNX ?= $(CACHE)/onnx/universal-sentence-encoder-multilingual-3-int8.onnx
MODEL := var/model/$(PRECISION)
TEST_VENV := $(CACHE)/venv-$(shell cksum < tests/requirements.txt | cut -d' ' -f1)
DENY_VERSION := 0.20.2
COVERAGE_VERSION := 0.9.1

run: model build
	@exec python3 deploy/local.py target/release $(MODEL) var

test: model build $(TEST_VENV)/.complete
	@echo "== running the tests"
	@PATH="$(TEST_VENV)/bin:$$PATH" cargo test --release --workspace --no-fail-fast

model: onnx build
	@target/release/muse-models convert "$(ONNX)" $(MODEL) --precision $(PRECISION)

verify: model
	@target/release/muse-models verify $(MODEL)

build: libtorch
	@echo "== building (release)"
	@cargo build --release --locked --workspace

libtorch: needs
	@python3 models/fetch.py libtorch

onnx: needs
	@python3 models/fetch.py onnx

check: libtorch
	@echo "== formatting"
	@cargo fmt --all --check
	@echo "== lints"
	@cargo clippy --release --locked --workspace --all-targets -- -D warnings
	@echo "== licences, advisories, duplicates"
	@cargo deny --version 2>/dev/null | grep -qx 'cargo-deny $(DENY_VERSION)' || \
	  cargo install --debug --locked cargo-deny@$(DENY_VERSION)
	@cargo deny --log-level error check bans licenses sources
	@if cargo deny fetch db >/dev/null 2>&1; then cargo deny --log-level error check advisories; \
	  else echo "advisories: SKIPPED, the advisory database cannot be fetched"; fi

fmt:
	@cargo fmt --all

# rustup's llvm-tools, or else the LLVM of the same release as rustc's from the system's packages.
coverage: model $(TEST_VENV)/.complete
	@cargo llvm-cov --version 2>/dev/null | grep -qx 'cargo-llvm-cov $(COVERAGE_VERSION)' || \
	  cargo install --debug --locked cargo-llvm-cov@$(COVERAGE_VERSION)
	@llvm=$$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p'); \
	if ! compgen -G "$$(rustc --print sysroot)/lib/rustlib/*/bin/llvm-cov" >/dev/null; then \
	  command -v llvm-cov-$$llvm >/dev/null || { echo "error: llvm-tools are needed: run 'rustup component add llvm-tools', or install the system's package llvm-$$llvm" >&2; exit 1; }; \
	  export LLVM_COV=llvm-cov-$$llvm LLVM_PROFDATA=llvm-profdata-$$llvm; \
	fi; \
	PATH="$(TEST_VENV)/bin:$$PATH" cargo llvm-cov --release --workspace --ignore-filename-regex '(^|/)tests/'

bench: model
	@cargo run --release --locked -p muse-tests --bin muse-bench -- $(MODEL)
	@cargo run --release --locked -p muse-tests --bin muse-bench-auth -- $(MODEL)

clean:
	@cargo clean

# The Python packages that the tests use, kept outside the checkout so that another clone finds them.
$(TEST_VENV)/.complete:
	@echo "== installing the tests' Python packages"
	@rm -rf "$(TEST_VENV)" && python3 -m venv "$(TEST_VENV)" && \
	  "$(TEST_VENV)/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.txt && touch $@

needs:
	@for tool in cargo python3 c++; do command -v $$tool >/dev/null || \
	  { echo "error: '$$tool' is needed and was not found: see 'Needed beforehand' in the README" >&2; exit 1; }; done
	@python3 -m pip --version >/dev/null 2>&1 || \
	  { echo "error: pip for python3 is needed and was not found: see 'Needed beforehand' in the README" >&2; exit 1; }
