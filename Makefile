# quorate: everything is one word after `make`. `make help` lists the words.
#
# What a word needs and the machine does not have is unpacked into .tools/ by scripts/install-tools;
# nothing of the machine is changed.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# What lies in .tools/bin was put there because the machine's own does not serve, so it comes first.
# Last come rustup's own place and the disk tools', for shells that were not told of them.
export PATH := $(CURDIR)/.tools/bin:$(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

# etcd-client's build script looks for protoc. The variable is set only where there is no other, so
# that a plain `cargo build` beside `make` does not build it anew.
ifeq ($(PROTOC),)
ifeq ($(shell PATH='$(subst $(CURDIR)/.tools/bin:,,$(PATH))' sh -c 'command -v protoc' 2>/dev/null),)
export PROTOC := $(CURDIR)/.tools/bin/protoc
endif
endif

# demo uses the build that `make test` uses, bench that of `make build`, which is what ships.
PROFILE ?= dev
bench: PROFILE = release
PROGRAMS = $(or $(CARGO_TARGET_DIR),target)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
LINTS = cargo clippy --all-targets

.PHONY: help
help: ## lists the words
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: tools ## three machines become one cluster, workers join, one dies, and nothing is lost
	cargo build --profile $(PROFILE) --features lab --bins
	scripts/demo $(PROGRAMS)/quorate-lab

.PHONY: test
test: tools tools-test ## all tests; ends with the test runner's own line
	cargo test --features lab --lib --bins --test it

.PHONY: lint
lint: tools-rust ## formatting, lints, dependencies' licences, shell scripts, systemd units
	cargo fmt --check
	$(LINTS) -- -D warnings
	$(LINTS) --features lab -- -D warnings
	@scripts/lint-others

.PHONY: advisories
advisories: ## known faults of the dependencies; needs cargo-deny and the network
	cargo deny --all-features check advisories

.PHONY: bench
bench: tools ## measures forming, the control plane and idling; the figures go to target/bench.json, too
	cargo build --profile $(PROFILE) --features lab --bins
	benches/forming-and-idling $(PROGRAMS)/quorate-lab

.PHONY: build
build: tools-rust ## the agent as it ships: target/release/quorate
	cargo build --release

.PHONY: package
package: tools-package ## the packages: target/package/*.deb and *.rpm
	cargo build --features lab --bin quorate-lab
	scripts/package

.PHONY: tools tools-rust tools-test tools-package
tools: ## installs what is missing into .tools/
	@scripts/install-tools rust protoc etcd disks
tools-rust:
	@scripts/install-tools rust protoc
tools-package:
	@scripts/install-tools rust protoc packagers
tools-test:
	@scripts/install-tools moto
	@scripts/install-tools cfn-lint || echo "make: without cfn-lint its tests say SKIPPED"
	@scripts/install-tools promtool icinga2 || echo "make: without promtool or icinga2 their tests say SKIPPED"
