# Everything a contributor runs. `make` alone lists it.
#
# Needed: Go, git and make. The other programs are built from the modules
# pinned in tools/ when they are first used, and kept in the Go build cache and
# in ~/.cache/switchboard.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMAGE ?= switchboard:dev
# The architecture that archives of images are for: make image-archive IMAGE_ARCH=arm64
IMAGE_ARCH ?= $(or $(GOARCH),$(shell go env GOARCH))
# Whom the archive's programs trust where nothing else is said, as a public issuer of
# tokens; none where this machine has no such file.
CA_CERTIFICATES ?= $(wildcard /etc/ssl/certs/ca-certificates.crt)
CHECKER_IMAGE ?= switchboard-checker:dev
# What the upgrade test upgrades from, and the image's name there.
PREVIOUS ?= HEAD^
PREVIOUS_IMAGE ?= switchboard:previous
FUZZTIME ?= 10s
SOAK ?= 1h
SEEDS ?= 300
FROM ?= 1
HUBS ?= 1000
RATE ?= 10000
# Narrows the test targets: make test PKG=./hubnode/hub
PKG ?= ./...

GO_BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'
CONTROLLER_GEN := go tool -modfile=tools/go.mod controller-gen
GOLANGCI_LINT := go tool -modfile=tools/lint/go.mod golangci-lint
COMMANDS := operator hubnode hubctl kubectl-hub
IMAGE_COMMANDS := operator hubnode hubctl
GO_BUILD_IMAGE := GOOS=linux GOARCH='$(IMAGE_ARCH)' $(GO_BUILD)
# It runs here, whatever it packs.
PACK_IMAGE := env -u GOOS -u GOARCH go -C tools/image run . -arch '$(IMAGE_ARCH)'

# What tests find in their environment; built at the first use. A value set by
# the caller wins, as in make test KUBEBUILDER_ASSETS=/some/folder.
TEST_ENV = KUBEBUILDER_ASSETS="$${KUBEBUILDER_ASSETS:-$$(tools/envtest)}" && export KUBEBUILDER_ASSETS && \
	KUBECTL="$${KUBECTL:-$$KUBEBUILDER_ASSETS/kubectl}" && export KUBECTL && \
	HELM="$${HELM:-$$(tools/helm-path)}" && export HELM

# The race detector needs a C compiler with its headers. Without them nothing
# may use cgo either.
RACE = race=-race; printf '\#include <stdlib.h>\nint main(void) { return 0; }' | $$(go env CC) -x c -o /dev/null - 2>/dev/null || \
	{ race=; export CGO_ENABLED=0; echo 'no C compiler: the tests run without the race detector' >&2; }

##@ Start here

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## "; print "usage: make TARGET" } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: dev
dev: bin/hubctl ## Run a hub of three nodes on loopback until Ctrl-C
	@exec bin/hubctl dev $(ARGS)

.PHONY: test
test: ## Run all tests but those on a real cluster
	@$(TEST_ENV); $(RACE); \
	set -x; go test $$race -shuffle=on -timeout 25m $(PKG); go -C tools/image test ./...; go -C tools/alerts test ./...

##@ Build

.PHONY: build
build: $(COMMANDS:%=bin/%) ## Build bin/operator, bin/hubnode, bin/hubctl and bin/kubectl-hub, static

# Always asked for: go knows better than make what is up to date.
.PHONY: $(COMMANDS:%=bin/%)
$(COMMANDS:%=bin/%): bin/%:
	@$(GO_BUILD) -o $@ ./cmd/$*

.PHONY: kubectl-hub
kubectl-hub: bin/kubectl-hub ## Build kubectl's plugin, bin/kubectl-hub

.PHONY: image
image: ## Build the image with docker (IMAGE=switchboard:dev)
	docker build --build-arg VERSION='$(VERSION)' -t '$(IMAGE)' .

.PHONY: image-archive
image-archive: ## Build its like without docker or network: bin/switchboard-image.tar (IMAGE_ARCH=arm64)
	@for c in $(IMAGE_COMMANDS); do $(GO_BUILD_IMAGE) -o bin/image/$$c ./cmd/$$c; done
	@$(PACK_IMAGE) $(patsubst %,-ca '%',$(abspath $(CA_CERTIFICATES))) -name '$(IMAGE)' -out '$(CURDIR)/bin/switchboard-image.tar' $(IMAGE_COMMANDS:%='$(CURDIR)/bin/image/%')

.PHONY: checker-archive
checker-archive: ## Build the image of what e2e runs beside hubs, the load that judges: bin/checker-image.tar
	@$(GO_BUILD_IMAGE) -o bin/image/checker ./test/check/checker
	@$(GO_BUILD_IMAGE) -o bin/image/metricsadapter ./test/e2e/metricsadapter
	@$(PACK_IMAGE) -name '$(CHECKER_IMAGE)' -out '$(CURDIR)/bin/checker-image.tar' '$(CURDIR)/bin/image/checker' '$(CURDIR)/bin/image/metricsadapter'

.PHONY: previous-archive
previous-archive: ## Build image and chart of PREVIOUS (HEAD^), which e2e upgrades from: bin/previous.tar, bin/previous
	@rm -rf bin/previous && mkdir -p bin/previous
	@git archive '$(PREVIOUS)' | tar -x -C bin/previous
	@$(MAKE) -C bin/previous image-archive IMAGE='$(PREVIOUS_IMAGE)' VERSION="$$(git describe --tags --always '$(PREVIOUS)')"
	@mv bin/previous/bin/switchboard-image.tar bin/previous.tar

.PHONY: clean
clean: ## Remove what was built here (not the tools in ~/.cache/switchboard)
	rm -rf bin dist

##@ Change

.PHONY: generate
generate: ## Regenerate the deep copies of the API types
	@$(CONTROLLER_GEN) object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: manifests
manifests: ## Regenerate the CRDs and RBAC from their markers, for kustomize and the chart
	@$(CONTROLLER_GEN) crd rbac:roleName=switchboard-operator paths=./api/... paths=./controllers/... \
		output:crd:dir=config/crd/bases output:rbac:dir=config/rbac
	@bash hack/sync-chart-crds.sh

.PHONY: fmt
fmt: ## Format the code (gofumpt, imports in groups)
	@$(GOLANGCI_LINT) fmt ./...
	@for dir in image alerts; do (cd tools/$$dir && go tool -modfile=../lint/go.mod golangci-lint fmt -c ../../.golangci.yml ./...); done
	@cd bench && go tool -modfile=../tools/lint/go.mod golangci-lint fmt -c ../.golangci.yml ./...

# Go leaves a go.sum whose lines a merge put out of order as it is, but its -diff
# reports it: what is reported is applied.
.PHONY: tidy
tidy: ## Tidy every module of the repository
	@for mod in $$(git ls-files -co --exclude-standard -- go.mod '*/go.mod'); do \
		dir=$$(dirname "$$mod"); echo "tidy: $$mod"; go -C "$$dir" mod tidy && \
		{ go -C "$$dir" mod tidy -diff || true; } | (cd "$$dir" && git apply --allow-empty -); done

##@ Check

.PHONY: lint
lint: ## Run golangci-lint, formatting included, and kube-score on the manifests
	$(GOLANGCI_LINT) run ./...
	@for dir in image alerts; do (cd tools/$$dir && go tool -modfile=../lint/go.mod golangci-lint run -c ../../.golangci.yml ./...); done
	@cd bench && go tool -modfile=../tools/lint/go.mod golangci-lint run -c ../.golangci.yml ./...
	@$(TEST_ENV); set -x; tools/lint-manifests

.PHONY: vet
vet: ## Run go vet, on what only tags switch on too
	go vet ./...
	go vet -tags e2e,readme,fault ./test/...
	go -C tools/image vet ./...
	go -C tools/alerts vet ./...
	go -C bench vet ./...

.PHONY: verify
verify: ## Fail when generated files are stale or modules not tidy
	@tools/verify

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities in what is called (needs the network)
	go tool -modfile=tools/go.mod govulncheck ./...

.PHONY: sbom
sbom: ## Write what each program of the image is made of: bin/PROGRAM.cdx.json (CycloneDX)
	@mkdir -p bin
	@for c in $(IMAGE_COMMANDS); do GOOS=linux go tool -modfile=tools/go.mod cyclonedx-gomod app -json -licenses -main cmd/$$c -output bin/$$c.cdx.json . || exit 1; echo bin/$$c.cdx.json; done

.PHONY: test-integration
test-integration: ## Run the tests against an API server and of several nodes
	@$(TEST_ENV); $(RACE); \
	set -x; go test $$race -count=1 ./controllers/... ./test/cluster/...

.PHONY: test-readme
test-readme: ## Run the README's loopback chapter, on the ports it names
	go test -tags readme -count=1 -v ./test/readme

.PHONY: fault
fault: ## Do to nodes what machines and networks do, and judge (5 minutes; root, Linux)
	go test -tags fault -count=1 -timeout 20m -v ./test/fault

.PHONY: soak
soak: ## One fault after another under a load of history, for SOAK (1h; root, Linux)
	go test -tags fault -count=1 -timeout 0 -v ./test/fault -run TestSoak -soak $(SOAK)

.PHONY: linear
linear: ## Check that topics are linearizable in SEEDS (300) runs, from seed FROM (4 minutes)
	go test -count=1 -timeout 0 -parallel 4 ./hubnode/shard -run TestTopicsAreLinearizable -linear.seeds $(SEEDS) -linear.from $(FROM)

.PHONY: rotation
rotation: ## Replace every key and certificate of a hub under RATE (10000) artifacts a second (a minute)
	go test -count=1 -v ./test/cluster -run TestEveryKeyIsReplacedUnderLoad -rotation.rate $(RATE)

.PHONY: many-hubs
many-hubs: ## Measure the operator beside HUBS (1000) Hubs at rest (ten minutes; Linux)
	@$(TEST_ENV); \
	set -x; go test -count=1 -timeout 1h -v ./test/manyhubs -hubs $(HUBS) -windows 5

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (10s)
	@tools/fuzz '$(FUZZTIME)'

.PHONY: bench-smoke
bench-smoke: ## Run each benchmark once, so that it can't rot
	go test -run '^$$' -bench . -benchtime=1x $(PKG)

.PHONY: bench-cluster
bench-cluster: ## Measure what happens between nodes (four minutes; ARGS='-run kill')
	@cd bench && go run ./cluster $(ARGS)

.PHONY: bench
bench: ## Measure beside nats-server, redis and mosquitto (25 minutes; ARGS='-quick')
	@cd bench && go run . $(ARGS)

.PHONY: e2e
e2e: ## Run the real-cluster suite (KUBECONFIG, all images already on its nodes)
	@$(TEST_ENV); export IMAGE='$(IMAGE)' CHECKER_IMAGE='$(CHECKER_IMAGE)'; \
	if [ -d bin/previous ]; then export PREVIOUS_IMAGE='$(PREVIOUS_IMAGE)' PREVIOUS_CHART='$(CURDIR)/bin/previous/charts/switchboard'; fi; \
	set -x; go test -tags e2e -count=1 -timeout 60m -v ./test/e2e
