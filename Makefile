# volmig: `make demo` shows it, `make test` proves it.  `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
PORT ?= 8000
STAMP := $(VENV)/.installed

# Debian packages.  Needed by `make demo`:
DEMO_PACKAGES := e2fsprogs python3-venv
# Needed by the tests beside these:
TEST_PACKAGES := e2fsprogs python3-venv xfsprogs btrfs-progs chromium fonts-dejavu-core \
	nbdkit libnbd-bin python3-libnbd qemu-utils
# By `make test-storage`:
STORAGE_PACKAGES := e2fsprogs qemu-utils qemu-block-extra nbdkit python3-libnbd tgt libiscsi-bin \
	ceph-mon ceph-osd ceph-common python3-rados python3-rbd
# And by `make test-vm`, which fetches the guest's kernel besides:
VM_PACKAGES := qemu-utils qemu-system-x86 seabios busybox-static kmod lvm2 thin-provisioning-tools \
	e2fsprogs xfsprogs nbdkit python3-libnbd nfs-kernel-server rpcbind \
	qemu-block-extra tgt libiscsi-bin ceph-mon ceph-osd ceph-common python3-rados python3-rbd

STORAGE_TESTS := tests/conformance/test_rbd.py tests/conformance/test_iscsi.py tests/integration/test_matrix.py \
	tests/integration/test_rbd_moves.py tests/acceptance/test_killed_between_storages.py \
	tests/integration/test_storage_hangs.py tests/integration/test_storage_refuses.py \
	tests/acceptance/test_interrupted_validation.py

.DEFAULT_GOAL := help
.PHONY: help install install-dev system-packages system-packages-demo demo test test-storage test-faults test-vm lint format lock clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/:.*## /\t/' | expand -t 22

install: $(STAMP) ## Make .venv with the pinned runtime requirements.
	@sh tools/link-system-modules.sh $(VENV)

$(STAMP): requirements.txt
	@PYTHON="$(PYTHON)" sh tools/make-venv.sh $(VENV) requirements.txt
	@touch $@

install-dev: $(VENV)/.installed-dev ## The same with what tests and checks need.
	@sh tools/link-system-modules.sh $(VENV)

$(VENV)/.installed-dev: requirements.txt requirements-dev.txt
	@PYTHON="$(PYTHON)" sh tools/make-venv.sh $(VENV) requirements-dev.txt
	@touch $(STAMP) $@

system-packages: ## Install the Debian packages that demo and tests need (as root).
	@sh tools/system-packages.sh --install $(TEST_PACKAGES)

demo: ## Set everything up, run one migration, and leave the site running.
	@sh tools/system-packages.sh $(DEMO_PACKAGES)
	@$(MAKE) --no-print-directory install
	@exec $(MANAGE) demo --port $(PORT)

test: ## Run the tests: on SQLite, on PostgreSQL, with real workers, file systems and a browser.
	@sh tools/system-packages.sh $(TEST_PACKAGES)
	@$(MAKE) --no-print-directory install-dev
	@$(MAKE) --no-print-directory lint
	@BIN=$(BIN) sh tools/run-tests.sh $(patsubst %,--ignore %,$(STORAGE_TESTS))

test-storage: ## Test Ceph, iSCSI and every way from one kind of storage to another.
	@sh tools/system-packages.sh $(STORAGE_PACKAGES) || [ -z "$$VOLMIG_REQUIRE" ]
	@$(MAKE) --no-print-directory install-dev
	$(BIN)/python -m pytest -q -n 3 --dist loadfile $(STORAGE_TESTS)

test-faults: install-dev ## The whole fault matrix on both databases: every boundary, every fault.
	VOLMIG_FAULTS=all $(BIN)/python -m pytest -q tests/saga tests/integration/test_faults.py
	VOLMIG_FAULTS=all VOLMIG_TEST_DATABASE=postgresql $(BIN)/python -m pytest -q tests/integration/test_faults.py

test-vm: ## Test logical volumes and NFS, with Ceph and iSCSI beside, in virtual machines (as root; skipped where there are none).
	@sh tools/system-packages.sh $(VM_PACKAGES) || [ -z "$$VOLMIG_REQUIRE" ]
	@$(MAKE) --no-print-directory install-dev
	@$(BIN)/python -m compileall -q backends migrations_app volmig_site tests
	@$(BIN)/python -m tests.vm

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install-dev ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Pin requirements.in and requirements-dev.in with hashes (needs uv).
	uv pip compile -q --python-version 3.11 --generate-hashes --no-header --no-emit-index-url requirements.in -o requirements.txt
	uv pip compile -q --python-version 3.11 --generate-hashes --no-header --no-emit-index-url requirements-dev.in -o requirements-dev.txt

clean: ## Remove the virtual environment, caches and the demo's state.
	rm -rf $(VENV) var .pytest_cache .ruff_cache .hypothesis
