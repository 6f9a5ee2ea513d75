# Coracle: build, test, run. "make up" makes a cluster, "make test" proves
# that the project works.
.PHONY: all build test lint unit e2e bench bench-node bench-api up down packages clean generate

GO ?= go
# Without gRPC's tracing pages nothing in the kubelet calls methods by name, and
# the linker can drop those that nobody uses: half of the program.
TAGS ?= grpcnotrace

all: build

build: ## The programs, into bin/.
	$(GO) build -tags $(TAGS) -o bin/ ./cmd/...

up: ## A three-node cluster named coracle (CLUSTER and NODES change that).
	hack/cluster-up.sh

down: ## The cluster is deleted, with all that belongs to it.
	hack/cluster-down.sh

test: packages lint unit e2e ## Everything that must hold; needs root.

packages: ## What the node tests need from the distribution.
	@if [ "$$(id -u)" -ne 0 ]; then echo "make test needs root: nodes are made of namespaces, mounts and cgroups" >&2; exit 1; fi
	hack/install-packages

lint: ## Formatting, vet and staticcheck.
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted with gofmt:" >&2; echo "$$unformatted" >&2; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) -C hack/bench vet ./...

unit: ## Tests of all packages: in process, on loopback, in own namespaces.
	$(GO) test ./...
	$(GO) -C hack/bench test ./...

e2e: build ## The demo on a real cluster of three nodes with real containers.
	$(GO) run ./hack/images --out bin/images
	$(GO) test -tags e2e -count=1 -timeout 15m -v ./e2e

bench: bench-api bench-node ## What was measured beside its reference.

bench-api: ## The API server beside a reference and a floor; ARGS="-quick" takes a minute.
	$(GO) build -tags $(TAGS) -o bin/ ./cmd/apiserver
	$(GO) -C hack/bench build -o ../../bin/bench/ ./etcd ./floor ./reference
	$(GO) -C hack/bench run . $(ARGS)

bench-node: build ## Cluster start, pod start against raw CRI calls, idle cost.
	$(GO) run ./hack/images --out bin/images
	$(GO) run ./hack/bench-node

generate: ## The API description, after an update of k8s.io/api.
	$(GO) run ./hack/openapi

clean:
	rm -rf bin
