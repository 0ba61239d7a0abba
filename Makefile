# Everything that is done with a checkout. Needs Python 3.11 or later and make; a Go toolchain is used if there is one.
# Variables given to make (make demo KEEP=1) reach the programs as environment variables.

PYTHON ?= python3
# An environment for each Python that is named: make test PYTHON=python3.13 leaves the others as they are.
ENVIRONMENT := .venv$(if $(filter python3,$(PYTHON)),,-$(notdir $(PYTHON)))
BIN := $(ENVIRONMENT)/bin
VENV := $(ENVIRONMENT)/made

.DEFAULT_GOAL := help
.PHONY: help venv binaries helm prometheus demo demo-picture extras test test-unit bench mutants check format docs reference dashboard plugin manifests version architecture image base-image cluster-up cluster-down cluster-status
.PHONY: rows simulate chaos hostile soak e2e node-binaries node-up node-down node-status kind-up kind-down lock clean
.PHONY: release-check release-files

help: ## This list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "make %-15s %s\n", $$1, $$2 }'

venv: $(VENV) ## The virtual environment .venv, from requirements/dev.lock (PYTHON=python3.13 makes another, for that Python)

$(VENV): requirements/dev.lock hack/venv.sh
	@PYTHON="$(PYTHON)" ENVIRONMENT="$(ENVIRONMENT)" hack/venv.sh

binaries: $(VENV) ## etcd, kube-apiserver, kube-controller-manager: found, or built once per machine (about 6 minutes)
	@$(BIN)/python -m tests.support.binaries

helm: $(VENV) ## Helm, for the tests of the chart: found, or built once per machine (about 2 minutes)
	@$(BIN)/python -m tests.support.binaries --helm

prometheus: $(VENV) ## Prometheus 3, for the tests of dashboard and alerts: found, or built once per machine (about 2 minutes)
	@$(BIN)/python -m tests.support.binaries --only prometheus

demo: $(VENV) ## The operator's story, told and checked in a terminal (KEEP=1 leaves it running; POD=1 plays it in Pods, as root on Linux)
	@$(if $(POD:0=),$(BIN)/python -m tests.support.demo --check)
	@$(BIN)/python -m tests.support.binaries $(if $(POD:0=),--node) > /dev/null
	@$(BIN)/python -m tests.support.demo

demo-picture: $(VENV) binaries ## Play the demo and draw it for the README: docs/demo.svg
	@$(BIN)/python hack/demo_picture.py

# With another cluster to test on, no programs are needed, and one operator at a time may serve it. All tests run four at a
# time, each worker on a cluster of its own; with ARGS, which choose some of them, one by one, and the coverage has no floor.
test: $(VENV) $(ENVIRONMENT)/docs $(if $(KUBECONFIG_UNDER_TEST),,binaries helm) ## All tests, with coverage (KUBECONFIG_UNDER_TEST=… tests on that cluster; ARGS=… for pytest)
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(if $(ARGS)$(KUBECONFIG_UNDER_TEST),$(ARGS),-n 4 --dist loadfile --no-loadscope-reorder)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report $(if $(ARGS),--fail-under=0)

extras: ## What some tests use, from Debian's packages: faketime, promtool, buildah, Chromium, and what a node needs
	@hack/extras.sh

rows: $(VENV) binaries ## What bad clients may cost good ones, by the real process: about 5 minutes
	$(BIN)/pytest tests/faults/test_rows.py -m slow $(ARGS)

# A connection that a killed API server leaves half open is closed by the garbage collector, which pytest would call an error.
e2e: $(VENV) ## The operator's image on a real node, with Pods that use the tokens, through faults: about 10 minutes, as root on Linux
	@if $(BIN)/python -m tests.support.node check; then $(BIN)/python -m tests.support.binaries --node > /dev/null; fi
	@$(BIN)/python -m tests.support.binaries --helm > /dev/null
	$(BIN)/pytest tests/e2e -W ignore::pytest.PytestUnraisableExceptionWarning $(ARGS)

simulate: $(VENV) ## Histories of the whole operator in a simulated world, for MINUTES=10 (SEED=… TRACE=file plays one)
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(TRACE),--trace $(TRACE)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

chaos: $(VENV) binaries ## Bursts of faults around two real replicas, for MINUTES=30, and judgement (SEED=… CREDENTIALS=300)
	@nice -n 5 $(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(CREDENTIALS),--credentials $(CREDENTIALS)) $(ARGS)

hostile: $(VENV) binaries ## Attacks on the real process, and what each costs: about 50 minutes (ONLY=name,… SECONDS=60; ARGS=--brief for 5 minutes)
	@nice -n 5 $(BIN)/python -m tests.hostile $(if $(ONLY),--only $(ONLY)) $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

soak: $(VENV) binaries ## A refresh per minute of each of CREDENTIALS=1000, for HOURS=2: nothing may grow
	@nice -n 5 $(BIN)/python -m tests.chaos.soak $(if $(HOURS),--hours $(HOURS)) $(if $(CREDENTIALS),--credentials $(CREDENTIALS)) $(ARGS)

test-unit: $(VENV) ## The tests that need no cluster
	$(BIN)/pytest tests/unit $(ARGS)

bench: $(VENV) binaries ## What the operator costs and holds, measured here: 20 to 45 minutes (N=10000: 70; ONLY=steady,… for some)
	@if $(BIN)/python -m tests.support.node check; then $(BIN)/python -m tests.support.binaries --node > /dev/null; fi
	@$(BIN)/python -m bench $(if $(N),--credentials $(N)) $(if $(ONLY),--only $(ONLY))

mutants: $(ENVIRONMENT)/mutants ## Whether the unit tests notice every small change of domain, engine and reconciler (ONLY=domain/memory,… for some)
	@$(BIN)/python hack/mutants

$(ENVIRONMENT)/mutants: $(VENV) requirements/mutants.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/mutants.lock
	@touch $@

check: $(VENV) ## All static checks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd plugin && PYTHONPATH=. ../$(BIN)/lint-imports
	@$(BIN)/python hack/check_docs.py
	@$(BIN)/python hack/rules.py
	@$(BIN)/python hack/check_commits.py
	@"$$($(BIN)/python -m tests.support.binaries --only actionlint)" -shellcheck= -pyflakes=
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*

format: $(VENV) ## Format the code and mend what can be mended by itself
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

image: ## The operator's image, with docker, podman or buildah (IMAGE=… names it; docs/image.md has the rest)
	@hack/image.sh $(ARGS)

# Bases for the image, where its own cannot be had: make release-check $(make base-image), in a shell.
release-check: $(VENV) $(ENVIRONMENT)/release ## All of a release that needs no forge, made twice, with lists of contents: dist/release
	@rm -rf dist/release dist/again && mkdir -p dist
	@ARCHIVE=dist/image.tar IMAGE=tuinly-release hack/image.sh > dist/image.log || { cat dist/image.log; exit 1; }
	@for folder in dist/release dist/again; do \
	  $(BIN)/python hack/release.py image-sbom dist/image.tar $$folder/sbom-image.cdx.json && \
	  $(BIN)/python hack/release.py files registry.example.com/tuinly-operator:check $$folder || exit 1; done
	@$(BIN)/python hack/release.py check dist/release dist/again

release-files: $(VENV) $(ENVIRONMENT)/release ## A release's files for an image that was pushed (IMAGE=NAME:TAG@sha256:…): dist/release
	@$(BIN)/python hack/release.py files "$(IMAGE)" dist/release

$(ENVIRONMENT)/release: $(VENV) requirements/release.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/release.lock
	@touch $@

base-image: ## Images to build it on, from Debian's packages, where no registry has any: prints what to give to make image
	@hack/base-image.sh

docs: $(ENVIRONMENT)/docs ## The docs as a site, strictly, with every link followed: build/site
	@$(BIN)/python hack/docs.py

$(ENVIRONMENT)/docs: $(VENV) requirements/docs.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/docs.lock
	@touch $@

reference: $(VENV) ## What of docs/reference is made of the code, and build/rules.md: the tests of each rule
	@$(BIN)/python hack/docs.py --reference
	@mkdir -p build && $(BIN)/python hack/rules.py build/rules.md

dashboard: $(VENV) ## The Grafana dashboard in deploy/monitoring/grafana, from hack/dashboard.py
	@$(BIN)/python hack/dashboard.py

plugin: $(VENV) ## The plugin `kubectl tuinly`: dist/kubectl-tuinly, one file for a folder on PATH, and its wheel
	@$(BIN)/python hack/plugin.py

manifests: $(VENV) ## Render deploy/install.yaml and deploy/namespaced.yaml from the kustomizations in deploy/
	@$(BIN)/python hack/manifests.py

version: $(VENV) ## Write pyproject's version wherever else it stands (VERSION=1.2.3 sets it)
	@$(BIN)/python hack/version.py $(VERSION)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

architecture: $(VENV) ## Draw docs/architecture.svg from the import graph
	@$(BIN)/python hack/architecture.py

cluster-up: $(VENV) binaries ## A Kubernetes API on loopback for trials of your own: .cluster/kubeconfig
	@$(BIN)/python -m tests.support.cluster up

cluster-down: $(VENV) ## End that cluster and remove its data
	@$(BIN)/python -m tests.support.cluster down

cluster-status: $(VENV) ## Whether that cluster runs
	@$(BIN)/python -m tests.support.cluster status

node-binaries: $(VENV) ## The control plane's programs and a node's: found, or built once per machine (about 10 minutes)
	@$(BIN)/python -m tests.support.binaries --node

node-up: $(VENV) node-binaries ## A node that runs Pods, in namespaces of its own, for trials: as root on Linux
	@$(BIN)/python -m tests.support.node up

node-down: $(VENV) ## End that node and remove its data
	@$(BIN)/python -m tests.support.node down

node-status: $(VENV) ## Whether that node runs
	@$(BIN)/python -m tests.support.node status

kind-up: ## A kind cluster with the operator of this checkout in it, where Docker exists: .kind/kubeconfig
	@hack/kind.sh up

kind-down: ## Delete that kind cluster
	@hack/kind.sh down

lock: ## Make requirements/*.lock anew (ARGS=--upgrade takes the newest versions)
	@PYTHON="$(PYTHON)" hack/lock.sh $(ARGS)

clean: cluster-down node-down ## Remove what was made here; the control plane's programs stay in their cache
	rm -rf .venv* .bench .chaos .cluster .node .e2e .kind build dist .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
