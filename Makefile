# `make` alone lists the targets.

.DEFAULT_GOAL := help
.PHONY: help build demo test test-clients torture fuzz mutants lint fmt clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the release binary, target/release/logtier
	cargo build --release

demo: ## one log through hot tier, archive and cold tier, under target/demo; KEEP=1 leaves the daemon up
	@KEEP="$(KEEP)" scripts/demo.sh

test: ## every test on SQLite + folder and on MariaDB + S3; ARGS="…" go to cargo test
	@scripts/test.sh $(ARGS)

test-clients: ## what the AWS SDKs for Python, JavaScript and Java find; fetches them
	@scripts/test-clients.sh $(ARGS)

torture: ## attacks what must hold, MINUTES=n a stage; STAGES="simulation" for some
	@scripts/torture.sh $(or $(MINUTES),10) $(STAGES)

fuzz: ## hostile bytes, MINUTES=n a target, then hostile requests (schemathesis); TARGETS="config http" for some
	@ARGS="$(ARGS)" scripts/fuzz.sh $(or $(MINUTES),1) $(TARGETS)

mutants: ## breaks the rules of safety one at a time; each must be caught; ONLY="fence" for some
	@scripts/mutants.sh $(ONLY)

lint: ## fmt, clippy, docs, scripts, typos, machete, deny; CHECKS="fmt clippy" for some
	@scripts/lint.sh $(CHECKS)

fmt: ## format the code
	cargo fmt

clean: ## remove target/: builds, fetched tools, the demo
	-@scripts/mariadb.sh stop
	cargo clean
