# `make` lists the targets. Set REVERTD_DATABASE__URL and REVERTD_AMQP__URL to use servers that run
# already; otherwise demo, test and bench start private ones below .servers/ and remove them.

CARGO      ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
TOOLS      ?= $(TARGET_DIR)/tools
CARGO_FOLDER := $(or $(CARGO_HOME),$(HOME)/.cargo)
SERVERS    := tests/support/servers
BENCH_ARGS ?=
MDBOOK     := $(TARGET_DIR)/tools/bin/mdbook
MDBOOK_VERSION := 0.5.4

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build man completions dist dist-check docs docs-serve docs-update diagrams mdbook demo test test-next test-contract \
	test-rules test-deploy test-compose faults bench bench-quick bench-peers lint fmt deny clean-servers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build the release binary
	$(CARGO) build --release --locked --bins

man: build ## write the manual pages into target/man
	$(TARGET_DIR)/release/revertd man "$(TARGET_DIR)/man"

# bash-completion, zsh and fish look for these names.
completions: build ## write the completions of bash, zsh and fish into target/completions
	@mkdir -p "$(TARGET_DIR)/completions"
	$(TARGET_DIR)/release/revertd completions bash >"$(TARGET_DIR)/completions/revertd"
	$(TARGET_DIR)/release/revertd completions zsh >"$(TARGET_DIR)/completions/_revertd"
	$(TARGET_DIR)/release/revertd completions fish >"$(TARGET_DIR)/completions/revertd.fish"

# The program must not contain the paths of the checkout and of cargo's folder, so that two machines
# build the same bytes. Different flags need a different target folder; otherwise each build would
# discard the other.
dist: export CARGO_TARGET_DIR = $(abspath $(TARGET_DIR)/dist-build)
dist: export RUSTFLAGS = --remap-path-prefix=$(CURDIR)=/revertd --remap-path-prefix=$(CARGO_FOLDER)=/cargo \
	--remap-path-prefix=$(CARGO_TARGET_DIR)=/target
dist: export CFLAGS = -ffile-prefix-map=$(CURDIR)=/revertd -ffile-prefix-map=$(CARGO_FOLDER)=/cargo \
	-ffile-prefix-map=$(CARGO_TARGET_DIR)=/target
dist: ## make the release archive, the Debian package and the list of what is in them, in target/dist
	$(CARGO) build --release --locked --bins
	@packaging/dist "$(TARGET_DIR)/dist" "$(TARGET_DIR)/dist-build/release/revertd" "$(TOOLS)"

# Two release builds. It checks the last commit, not the working tree.
dist-check: ## make the release twice, in different folders, and compare the files byte for byte
	@packaging/dist-check "$(TARGET_DIR)/dist-check" "$(TOOLS)"

docs: mdbook ## build the book of docs/ into target/book
	@$(MDBOOK) build --dest-dir "$(abspath $(TARGET_DIR)/book)"

docs-serve: mdbook ## show the book on http://localhost:3000, and rebuild it on changes
	@$(MDBOOK) serve --dest-dir "$(abspath $(TARGET_DIR)/book)"

docs-update: ## write the generated parts of docs/: the configuration's keys, the commands' help, the refusals
	@UPDATE_DOCS=1 $(CARGO) test --locked --features failpoints --test it -- documents::generated

# Needs Graphviz. The digest in a drawing tells a test which source it was drawn from.
diagrams: ## draw docs/diagrams/*.svg from their sources
	@for source in docs/diagrams/*.dot; do \
	drawing=$${source%.dot}.svg; dot -Tsvg "$$source" >"$$drawing" && \
	echo "<!-- SHA-256 of the source: $$(sha256sum <"$$source" | cut -d ' ' -f 1) -->" >>"$$drawing" || exit 1; done

mdbook:
	@if [ "$$($(MDBOOK) --version 2>/dev/null)" != "mdbook v$(MDBOOK_VERSION)" ]; then \
	$(CARGO) install --locked --debug --root "$(TARGET_DIR)/tools" --version "=$(MDBOOK_VERSION)" mdbook; fi

# Built in the profile of the tests, which takes less than half the time of a release build.
demo: ## show the main job on real input, with servers of its own
	@echo "demo: installs PostgreSQL and RabbitMQ where they are missing, builds revertd (the first time about 3 minutes on"
	@echo "demo: 2 cores), starts private servers, and shows a request of each kind (half a minute)."
	@$(SERVERS) install
	@$(CARGO) build --locked --bins --example demo
	@$(SERVERS) with demo "$(TARGET_DIR)/debug/examples/demo"

# Compiles first, so that no server idles meanwhile and a compile error shows at once. The output of
# the tested processes is searched for secrets, even if a test failed.
test: export REVERTD_TEST_LOGS = $(abspath $(TARGET_DIR)/test-logs)
test: ## run every test, with servers of its own
	@echo "test: installs PostgreSQL and RabbitMQ where they are missing, builds revertd and its tests (the first time about 9"
	@echo "test: minutes on 2 cores), starts private servers, and runs every test (about 13 minutes)."
	@$(SERVERS) install
	@if $(CARGO) nextest --version >/dev/null 2>&1; then set -- $(CARGO) nextest run --locked --features failpoints; \
	else set -- $(CARGO) test --locked --features failpoints; fi; \
	rm -rf "$$REVERTD_TEST_LOGS" && mkdir -p "$$REVERTD_TEST_LOGS"; \
	"$$@" --no-run && { $(SERVERS) with test "$$@"; status=$$?; tests/support/no-secrets "$$REVERTD_TEST_LOGS" && exit $$status; }

# Needs root and debootstrap, and creates the release once (tests/support/release).
test-next: ## run every test on Debian 13's RabbitMQ 4.0 and PostgreSQL 17
	@env -u REVERTD_DATABASE__URL -u REVERTD_AMQP__URL REVERTD_TEST_RELEASE=trixie $(MAKE) --no-print-directory test

# Installs tools from PyPI and npm, in fixed versions, into the target folder and tests/contract.
test-contract: ## check the documents, clients in other languages and the gateway with other people's tools
	@$(SERVERS) install
	@tests/contract/install "$(TARGET_DIR)/contract"
	@$(CARGO) build --locked --quiet --bins
	@$(SERVERS) with contract tests/contract/run "$(TARGET_DIR)/contract" "$(TARGET_DIR)/debug/revertd"

test-rules: ## check the alerts, and run their tests with promtool
	@tests/support/promtool

# Installs Debian packages, and tools from PyPI and crates.io into the target folder.
test-deploy: ## check manifest, units, compose file, manual pages, completions and packages with the tools that read them
	@tests/deploy/install "$(TARGET_DIR)/deploy"
	@$(CARGO) build --locked --bins
	@tests/deploy/check "$(TARGET_DIR)/deploy" "$(TARGET_DIR)/debug/revertd" "$(TOOLS)"

# Takes root, and no engine: podman runs the containers. Base images are made from Debian's packages.
test-compose: ## build the image, bring the compose stack up, send a request by AMQP and one by HTTP, take it down
	@tests/compose/run "$(TARGET_DIR)/compose"

# The table is printed even where a test failed; both decide the exit status.
faults: export REVERTD_FAULTS = full
faults: export REVERTD_FAULTS_REPORT = $(abspath $(TARGET_DIR)/faults.tsv)
faults: ## run every fault in full, about half an hour, and print what was lost or came twice
	@$(SERVERS) install
	@mkdir -p $(TARGET_DIR) && : >"$$REVERTD_FAULTS_REPORT"
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	set -- $(CARGO) nextest run --locked --features failpoints --profile faults --test faults --test it -E 'binary(faults) + test(/^contract::model::/)'; \
	else set -- sh -c '$(CARGO) test --locked --features failpoints --test faults -- --test-threads=1; status=$$?; \
	$(CARGO) test --locked --features failpoints --test it contract::model:: && exit $$status'; fi; \
	$(CARGO) test --locked --features failpoints --no-run --test faults --test it && { $(SERVERS) with faults "$$@"; status=$$?; \
	tests/support/faults-table "$$REVERTD_FAULTS_REPORT" && exit $$status; }

# Compiled first, as the tests are.
bench: ## measure everything (docs/operations/benchmarks.md), about 40 minutes; a part of it: BENCH_ARGS="latency"
	@$(SERVERS) install
	@$(CARGO) bench --locked --quiet --no-run --bench reverts
	@$(SERVERS) with bench $(CARGO) bench --locked --quiet --bench reverts -- $(BENCH_ARGS)

bench-quick: ## measure throughput and one latency, in two minutes
	@$(MAKE) --no-print-directory bench BENCH_ARGS="quick $(BENCH_ARGS)"

bench-peers: ## measure beside workers in Node.js, which this installs
	@benches/peers/install
	@$(MAKE) --no-print-directory bench BENCH_ARGS="peers $(BENCH_ARGS)"

lint: ## check the format, and the code with warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets --features failpoints --locked -- -D warnings
	@if docker compose version >/dev/null 2>&1; then REVERTD_DEV_PASSWORD=lint docker compose config --quiet; else echo "docker compose is not installed: docker-compose.yml unchecked"; fi
	@if command -v shellcheck >/dev/null; then shellcheck $(SERVERS) tests/support/release tests/support/promtool tests/support/faults-table tests/support/no-secrets tests/contract/install tests/contract/run tests/deploy/install tests/deploy/check tests/compose/run tests/compose/*-entrypoint tests/clients/submit.sh packaging/dist packaging/dist-check config/grants/rabbitmq.sh benches/peers/install .ci/run; else echo "shellcheck is not installed: scripts unchecked"; fi

fmt: ## format the code
	$(CARGO) fmt --all

deny: ## check bans, licenses and sources of the dependencies
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check bans licenses sources

clean-servers: ## stop and remove every private server of this checkout
	@$(SERVERS) destroy-all
