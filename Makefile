# Coracle: build, test, run. "make up" makes a cluster, "make test" proves
# that the project works.
.PHONY: all build clients test lint unit e2e bench bench-node bench-api bench-scheduler bench-controllers bench-scale up down reproducible sbom packages clean generate

GO ?= go
# One set of flags for programs and tests, so that everything is compiled once.
# Without cgo the programs need no library of the machine, in a node neither,
# and the machine needs no C compiler. Without gRPC's tracing pages nothing in
# the kubelet calls methods by name, and the linker can drop those that nobody
# uses: half of the program.
TAGS = grpcnotrace
export CGO_ENABLED = 0
export GOFLAGS = -trimpath -tags=$(TAGS)

# The version that the stock kubectl calls itself: that of its module.
KUBE = v1.$(subst v0.,,$(shell $(GO) -C hack/clients list -m -f '{{.Version}}' k8s.io/kubectl))

all: build

build: ## The programs, into bin/.
	$(GO) build -ldflags "-s -w" -o bin/ ./cmd/...

reproducible: ## Builds twice, in two folders and from nothing, and compares the programs. Takes long.
	hack/reproducible

sbom: build ## The modules in each program, with their versions and checksums, into bin/sbom.txt.
	$(GO) version -m bin/apiserver bin/scheduler bin/kubelet bin/ctl > bin/sbom.txt

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
	$(GO) vet -tags e2e,$(TAGS) ./...
	$(GO) -C hack/clients vet ./...
	$(GO) tool staticcheck ./...
	$(GO) -C hack/bench vet ./...

unit: ## Tests of all packages: in process, on loopback, in own namespaces.
	$(GO) test ./...
	$(GO) -C hack/bench test ./...

e2e: build clients ## The demo on a real cluster of three nodes with real containers.
	$(GO) run ./hack/images --out bin/images
	$(GO) test -tags e2e,$(TAGS) -count=1 -timeout 15m -v ./e2e

clients: ## Stock kubectl and Helm of the pinned versions, for the end-to-end run.
	$(GO) -C hack/clients build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$(KUBE)" -o ../../bin/ ./kubectl helm.sh/helm/v3/cmd/helm

bench: bench-api bench-node ## What was measured beside its reference.

bench-api: ## The API server beside a reference and a floor; ARGS=-quick takes two minutes.
	$(GO) build -ldflags "-s -w" -o bin/ ./cmd/apiserver
	$(GO) -C hack/bench build -o ../../bin/bench/ ./etcd ./floor ./reference
	$(GO) -C hack/bench run . $(ARGS)

bench-node: build ## Cluster start, pod start against raw CRI calls, idle cost.
	$(GO) run ./hack/images --out bin/images
	$(GO) run ./hack/bench-node

bench-scheduler: ## The scheduler on upstream's workload shapes; SHAPE=basic for one, ARGS="-scale 0.1" for a quick look.
	$(GO) run ./hack/bench-scheduler $(if $(SHAPE),-shape $(SHAPE)) $(ARGS)

bench-controllers: ## Controllers against bare requests, their writes, an idle cluster; ARGS="-scale 0.1" for a quick look.
	$(GO) run ./hack/bench-controllers $(ARGS)

bench-scale: build ## 5,000 simulated nodes and 100,000 pods; ARGS="-nodes 20000" for more.
	$(GO) run ./hack/bench-scale $(ARGS)

generate: ## The API description, after an update of k8s.io/api.
	$(GO) run ./hack/openapi

clean:
	rm -rf bin
