# The targets that have a help text below are for people; make help lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
# The longest test package takes eight minutes on two cores that do nothing else; what
# takes so much longer hangs.
TIMEOUT := 30m
# Tests wait far more than they compute, for hosts above all, so more of them run at a
# time than there are processors; fewer under the race detector, which computes more.
# What go vet finds is found by lint.
AT_ONCE := -vet off -p 3

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what is missing (apt, root or sudo); quick when nothing is
	@scripts/setup

.PHONY: build
build: build-devstack ## Build bin/commissaire and bin/devstack
	$(GO) build -trimpath -ldflags "-X commissaire/internal/version.commit=$$(git rev-parse --short HEAD 2>/dev/null)" -o bin/ ./cmd/...

# Without -trimpath, so that it shares compiled packages with the tests:
# Temporal's server takes minutes to compile.
.PHONY: build-devstack
build-devstack:
	cd devstack && $(GO) build -o ../bin/ ./cmd/devstack

.PHONY: build-commctl
build-commctl:
	$(GO) build -trimpath -ldflags "-X commissaire/internal/version.commit=$$(git rev-parse --short HEAD 2>/dev/null)" -o bin/ ./cmd/commctl

.PHONY: dev
dev: setup build-devstack build-commctl ## Run everything on this machine: Postgres, Temporal with its UI, API and worker
	@bin/devstack up $(ARGS)

.PHONY: demo
demo: setup build-devstack build-commctl ## The same, with five sshd hosts and a rolling restart to watch (DEMO_EXIT=1 ends after it)
	@bin/devstack demo $(ARGS)

.PHONY: test
test: setup lint test-product test-deploy test-devstack ## Run all checks and all tests

.PHONY: lint
lint: ## Check format, vet, generated code and determinism of workflows
	@bad=$$(gofmt -l .); if [ -n "$$bad" ]; then echo "not formatted; run gofmt -w" $$bad >&2; exit 1; fi
	scripts/check-generated
	$(GO) vet ./...
	$(GO) vet -tags chaos ./internal/app
	$(GO) tool -modfile=tools/go.mod workflowcheck -config scripts/workflowcheck.yaml ./workflows/...
	cd devstack && $(GO) vet ./...

.PHONY: test-product
test-product:
	$(GO) test -race $(AT_ONCE) -parallel 4 -timeout $(TIMEOUT) ./...

# Without the race detector: it would have Temporal's server compiled a second
# time, which takes longer than all the tests. Never from the cache of results: they
# run programs that they build, of whose sources the cache does not know. The package
# that takes longest comes first, so that the others run beside it.
.PHONY: test-devstack
test-devstack:
	cd devstack && $(GO) test -count 1 $(AT_ONCE) -parallel 8 -timeout $(TIMEOUT) ./e2e ./...

.PHONY: test-deploy
test-deploy: ## Check alerts and compose file by the libraries of Prometheus and docker compose
	cd tools/deploycheck && $(GO) vet ./... && $(GO) test -timeout $(TIMEOUT) ./...

.PHONY: contract
contract: setup ## Replay the contract of the original Commissaire, fact by fact (docs/contract.md)
	cd devstack && $(GO) test -c -o ../bin/contract.test ./contract
	cd devstack/contract && ../../bin/contract.test -test.timeout $(TIMEOUT)

.PHONY: test-machines
test-machines: ## Run the tests on real systemd machines (root; installs systemd-container and debootstrap)
	scripts/setup-nspawn
	$(GO) test -race -count 1 -timeout $(TIMEOUT) ./internal/remote/nspawntest/...

.PHONY: acceptance
acceptance: setup ## Let the product work on real machines of all sorts, and look at them (root; ARGS="-images 0")
	scripts/setup-nspawn
	$(GO) build -trimpath -o bin/ ./cmd/commissaire
	cd devstack && $(GO) build -o ../bin/ ./cmd/acceptance
	bin/acceptance $(ARGS)

.PHONY: chaos
chaos: build-chaos ## Kill worker and API at every point of every step and see that nothing is lost (long)
	bin/chaos $(ARGS)

.PHONY: proof-once
proof-once: build-chaos ## Run 1,000 commands under killed workers, cut connections and restarts of sshd
	bin/chaos $(ARGS) once

.PHONY: proof-pause
proof-pause: build-chaos ## Pause rollouts 1,000 times, and see that no host begins
	bin/chaos $(ARGS) pause

.PHONY: proof-reboot
proof-reboot: build-chaos ## Restart hosts that reboot slowly, falsely, again and again, or with another key
	bin/chaos $(ARGS) reboot

.PHONY: chaos-k8s
chaos-k8s: build-chaos build-kube ## Do harm to 300 rollouts that drain nodes, and see that no cordon is left (ARGS="-count 12 -seed 1")
	bin/chaos $(ARGS) k8s

.PHONY: build-chaos
build-chaos: setup
	$(GO) build -tags chaos -o bin/commissaire-chaos ./cmd/commissaire
	cd devstack && $(GO) build -o ../bin/ ./cmd/chaos

.PHONY: scale
scale: setup ## Restart 1,000 simulated hosts and measure it (ARGS="-hosts 10000" for more)
	$(GO) build -trimpath -o bin/ ./cmd/commissaire
	cd devstack && $(GO) build -o ../bin/ ./cmd/scale
	bin/scale $(ARGS)

.PHONY: proof-bastion
proof-bastion: setup ## Reach 2,000 simulated hosts through one sshd with the limits it comes with, and count who is refused
	cd devstack && $(GO) build -o ../bin/ ./cmd/bastion
	bin/bastion $(ARGS)

.PHONY: proof-nodes
proof-nodes: setup build-kube ## Roll over 200 nodes of a Kubernetes, watched from the side of its API
	$(GO) build -trimpath -o bin/ ./cmd/commissaire
	cd devstack && $(GO) build -o ../bin/ ./cmd/scale
	bin/scale -hosts 200 $(ARGS) nodes

.PHONY: bench-watch
bench-watch: setup ## Measure what it takes to watch 10,000 simulated hosts every minute
	$(GO) build -trimpath -o bin/ ./cmd/commissaire
	cd devstack && $(GO) build -o ../bin/ ./cmd/benchwatch
	bin/benchwatch $(ARGS)

.PHONY: bench
bench: setup ## Compare with ssh, parallel-ssh, clush, Ansible and bare programs (ARGS="-parts fanout", "-write .")
	scripts/setup-bench
	$(GO) build -trimpath -o bin/ ./cmd/commissaire ./cmd/commctl
	cd devstack && $(GO) build -o ../bin/ ./cmd/bench
	bin/bench $(ARGS)

.PHONY: build-kube
build-kube: ## Build the Kubernetes control plane that tests of container managers need (long when cold)
	@$(GO) run ./internal/kubetest/build

.PHONY: bench-slots
bench-slots: ## Compare the planner's slots with batches, by a simulated clock
	@$(GO) test ./internal/fleet -run '^$$' -bench '^BenchmarkSlots$$' -benchtime 1x | grep '^slots:'

.PHONY: rest
rest: setup ## Measure an installation with nothing else to do: time to the first answer of a host, idle CPU
	cd devstack && $(GO) build -o ../bin/ ./cmd/rest
	bin/rest $(ARGS)

.PHONY: histories
histories: setup ## Record the workflow histories that tests replay, for the present revision
	cd devstack && $(GO) run ./cmd/histories -root ..

.PHONY: generate
generate: ## Make the generated code anew
	$(GO) generate ./...

.PHONY: clean
clean: ## Remove what was built; the state of dev and demo (.state) stays
	rm -rf bin
