# `make` alone lists what there is. Everything is built with cargo's release profile, so that the demo, the tests and
# the benchmarks share one build of the dependencies.

.DEFAULT_GOAL := help
SHELL := /usr/bin/env bash
STAGE := tools/stage.sh
export RUSTDOCFLAGS ?= -D warnings
# Integration tests mostly wait for servers of their own.
export RUST_TEST_THREADS ?= $(shell echo $$(($$(nproc) * 2)))

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

.PHONY: require require-dev require-test
require:
	@tools/check.sh
require-dev:
	@tools/check.sh dev
require-test:
	@tools/check.sh test

.PHONY: check
check: require-dev ## Formatting and lints alone, without tests
	@$(STAGE) format cargo fmt --check
	@$(STAGE) lint cargo clippy --locked --release --all-targets -- -D warnings

.PHONY: test
test: require-test check tools ## Formatting, lints, all tests, documentation
	@$(STAGE) test cargo test --locked --release
	@$(STAGE) documentation cargo doc --locked --release --no-deps --document-private-items

.PHONY: audit
audit: require ## Licences, sources and known vulnerabilities of the dependencies (cargo-deny)
	@$(STAGE) audit tools/audit.sh

# The long rounds of what `make test` does in short ones. SOAK_BROKERS="kafka" leaves tansu out (its build takes nine
# minutes, once).
SOAK_BROKERS ?= kafka tansu
SOAK := BOATHOUSE_SOAK_KILLS=50 BOATHOUSE_SOAK_OUTAGE_S=300 BOATHOUSE_SOAK_BROKER_S=60 BOATHOUSE_SOAK_ZOMBIE_S=60
.PHONY: soak
soak: require-test tools ## Long rounds of kills, outages and zombies on each broker; 20,000 seeds of each protocol simulation
	@$(STAGE) simulate env BOATHOUSE_SEEDS=20000 BOATHOUSE_MODEL_SEEDS=20000 \
		cargo test --locked --release --lib -- bronze::simulation window::tests::model simulation::both
	@$(STAGE) "batch: 5 million events recounted by DuckDB, 100 kills, random sequences" \
		env BOATHOUSE_RECOUNT_EVENTS=5000000 BOATHOUSE_SOAK_BATCH_KILLS=100 BOATHOUSE_SEEDS=200 \
		cargo test --locked --release --test it -- --test-threads=1 medallion::recount medallion::kills medallion::sequence
	@for broker in $(SOAK_BROKERS); do \
		$(STAGE) "set up $$broker" env BOATHOUSE_BROKER=$$broker tools/broker.sh && \
		$(STAGE) "soak on $$broker" env BOATHOUSE_BROKER=$$broker $(SOAK) \
			cargo test --locked --release --test it -- --test-threads=1 crash:: stream:: || exit 1; \
	done

# By hand: the feature builds OpenSSL and librdkafka, which no other target needs.
.PHONY: kafka-tls
kafka-tls: require-dev ## Kafka over TLS with SCRAM against a real broker (needs Java and openssl; builds some minutes, once)
	@$(STAGE) "Kafka over TLS" tools/kafka-tls.sh

.PHONY: tools
tools: require ## Fetch the pinned ClickHouse engine and Kafka broker into the cache folder
	@$(STAGE) engine tools/chdb.sh
	@$(STAGE) broker tools/broker.sh

# A second `make demo` goes on where the first stopped. Options: make demo DEMO="--rate 1000 --kafka-port 9192".
.PHONY: demo
demo: tools ## Build and start everything, print the addresses and a live view; Ctrl-C stops it
	@$(STAGE) build cargo build --locked --release
	@"$${CARGO_TARGET_DIR:-target}/release/boathouse" demo $(DEMO)

# Options: make bench BENCH="--events 1000000 --svg bench.svg".
.PHONY: bench
bench: tools ## Measure throughput, CPU, memory, latency and recovery on this machine; reconciled at the end
	@$(STAGE) build cargo build --locked --release
	@"$${CARGO_TARGET_DIR:-target}/release/boathouse" bench $(BENCH)

.PHONY: clean-data
clean-data: ## Throw the demo's data away
	rm -rf data
