# SPDX-License-Identifier: GPL-2.0
# The user's entry. Kernel objects are in Kbuild, which make does not read here.
#
# Everything is made in a Debian build root in $(BUILD), where this repository
# is /src and $(BUILD) is /build; nothing is built in the source tree.

BUILD ?= $(CURDIR)/build
override BUILD := $(abspath $(BUILD))
export BUILD

enter := scripts/enter
kbuild := $(enter) make -C /build/kdir --no-print-directory -j$(shell nproc) M=/src
kbuild_debug := $(enter) make -C /build/kdir-debug --no-print-directory -j$(shell nproc) LLVM=1 M=/src
stamps := $(BUILD)/stamps
suite := /src/tools/testing/selftests/filesystems/erofs_demand
selftest_args := LIB_MK=/build/kdir/tools/testing/selftests/lib.mk \
	KHDR_INCLUDES='-idirafter /src/include/uapi' OUTPUT=/build/selftests

help:
	@echo 'Needs root, a Debian-like machine with apt, 14 GB of disk, and the network once.'
	@echo ''
	@echo 'make setup       fetch the target kernel, compilers and QEMU into build/ (once, about 6 minutes)'
	@echo 'make demo        boot the kernel in a VM and start a program from an image that has not arrived;'
	@echo '                 ARGS=shell ends at a prompt in that VM'
	@echo 'make test        all tests: host, scripts, and kernel modules in a VM'
	@echo 'make test-host   tests of the daemon and of the pure crates'
	@echo 'make test-vm     kernel selftests; T="mount share" runs only these'
	@echo 'make test-debug  the same suites on a kernel with KASAN, lockdep, kmemleak and KUnit, which is built'
	@echo '                 first (about 20 minutes, once); T as above; J=2: shared by two VMs'
	@echo 'make stress      64 readers against a daemon that is killed all the time; S=SECONDS (600), K=debug'
	@echo 'make kill-loop   kill -9 of the daemon amid verified fetches; N=KILLS (50), K=debug'
	@echo 'make outage      a web server that is away for S=SECONDS (60), in three ways; K=debug'
	@echo 'make fuzz-device a hostile daemon with readers underneath; S=SECONDS (900), K=debug'
	@echo 'make fuzz        any bytes for the daemon and the crates that read images, with libFuzzer; S=SECONDS (1800), T="map inode"'
	@echo 'make miri        tests of the pure crates in Miri, which needs rustup with a nightly toolchain'
	@echo 'make fuzz-images damaged images, mounted and looked at; N=MUTANTS (5000), K=stock (debug)'
	@echo 'make power-cut   kill the VM while its cache is being filled; N=ROUNDS (20)'
	@echo 'make bench-backend  misses, hits, memory, system calls of the cache; FS=xfs'
	@echo 'make bench       reads through a mount beside reads of the cache file, in a VM'
	@echo 'make bench-erofs  erofs.ko beside the kernel'"'"'s own: time, processor time, instructions'
	@echo 'make bench-start  a program whose image is on a web server: until it says something; REPETITIONS=N (3)'
	@echo 'make check       format, lints, documentation and symbols'
	@echo ''
	@echo 'make modules     cachefiles_demand.ko and erofs.ko, in build/modules/'
	@echo 'make daemon      demandd, in build/target/release/, and its manual pages, in build/share/'
	@echo 'make install     modules and daemon on this machine (INSTALL_MOD_PATH=, PREFIX=); uninstall undoes it'
	@echo 'make clean       remove what was built; distclean also removes what setup fetched'
	@echo ''
	@echo 'BUILD=DIR puts build/ elsewhere; KERNEL=VERSION makes setup take another kernel.'

# --- building ---------------------------------------------------------------

setup:
	@scripts/setup
	@$(MAKE) --no-print-directory $(stamps)/cargo

# setup is quick when there is nothing to do, so that every target can begin
# with it and works in a fresh clone.
$(BUILD)/stamps/tree: scripts/setup
	@scripts/setup
	@touch $@

# After this, cargo needs no network.
$(stamps)/cargo: tools/Cargo.lock | $(stamps)/tree
	@echo '==> fetch crates'
	@$(enter) sh -c 'cd /src/tools && cargo fetch --locked --target "$$(rustc -vV | sed -n "s/^host: //p")"'
	@touch $@

modules: | $(stamps)/tree
	@echo '==> modules'
	@$(kbuild) MO=/build/modules modules

# The debug kernel: also quick when there is nothing to do.
setup-debug: | $(stamps)/tree
	@scripts/setup-debug

modules-debug: setup-debug
	@echo '==> modules for the debug kernel'
	@$(kbuild_debug) MO=/build/modules-debug modules

daemon: $(stamps)/cargo
	@echo '==> daemon'
	@$(enter) sh -c 'cd /src/tools && cargo build --release --locked --offline && \
		rm -rf /build/share && /build/target/release/pages /build/share'

selftests: | $(stamps)/tree
	@mkdir -p $(BUILD)/selftests
	@$(enter) make -s -C $(suite) $(selftest_args) all

tree-image: selftests
	@scripts/make-tree-image

image-matrix: | $(stamps)/tree
	@scripts/make-image-matrix

# Into the build root, which is the root of the test guest. It has the sample, too.
guest_modules := cachefiles_demand erofs rust_filesystem

guest-modules: modules
	@$(enter) env BUILD=/build /src/scripts/install-modules / $(guest_modules)

guest-modules-debug: modules-debug
	@$(enter) env BUILD=/build /src/scripts/install-modules --debug / $(guest_modules)

# --- running ----------------------------------------------------------------

demo: guest-modules daemon
	@scripts/demo $(ARGS)

test: guest-modules daemon tree-image image-matrix
	@scripts/run-tests host scripts vm

test-host: $(stamps)/cargo
	@scripts/run-tests host

test-vm: guest-modules daemon tree-image image-matrix
	@T='$(T)' scripts/run-tests vm

test-debug: guest-modules-debug daemon tree-image image-matrix
	@T='$(T)' J='$(J)' scripts/run-tests debug

bench: guest-modules daemon
	@$(enter) make -s -C /src/tools/bench OUTPUT=/build/bench
	@scripts/vm --name bench --timeout 600 -- /src/tools/bench/first_light

# Long runs of what the suites do for seconds: S is how many, K=debug the kernel.
long_test = scripts/vm --name $@ $(if $(K),--kernel $(K)) --timeout $$(($(1) + 1800)) -- \
	env $(2)=$(1) LIMIT=$$(($(1) + 900)) /src/scripts/guest/selftests

stress: $(if $(K),guest-modules-$(K),guest-modules) daemon selftests
	@$(call long_test,$(or $(S),600),STRESS_SECONDS) stress

kill-loop: $(if $(K),guest-modules-$(K),guest-modules) daemon selftests
	@scripts/vm --name $@ $(if $(K),--kernel $(K)) --timeout $$(($(or $(N),50) * 60 + 1800)) -- \
		env KILLS=$(or $(N),50) LIMIT=$$(($(or $(N),50) * 60 + 900)) /src/scripts/guest/selftests kill_loop

outage: $(if $(K),guest-modules-$(K),guest-modules) daemon selftests
	@$(call long_test,$(or $(S),60),OUTAGE) outage

fuzz-device: $(if $(K),guest-modules-$(K),guest-modules) daemon selftests
	@$(call long_test,$(or $(S),900),FUZZ_SECONDS) hostile

fuzz: $(stamps)/cargo
	@scripts/fuzz --seconds $(or $(S),1800) $(T)

miri:
	@scripts/miri

# The debug kernel unless K=stock; there the answers of the kernel's own module are compared.
fuzz-images: $(if $(filter stock,$(K)),guest-modules,guest-modules-debug) daemon selftests image-matrix
	@K='$(K)' scripts/fuzz-images $(or $(N),5000) $(SEED)

power-cut: guest-modules daemon selftests
	@scripts/power-cut $(or $(N),20)

bench-backend: guest-modules daemon
	@$(enter) make -s -C /src/tools/bench OUTPUT=/build/bench
	@scripts/vm --name bench-backend --timeout 3600 -- \
		/src/tools/bench/backend $(if $(filter xfs,$(FS)),--xfs) $(SECTIONS)

bench-erofs: guest-modules
	@$(enter) make -s -C /src/tools/bench OUTPUT=/build/bench
	@scripts/make-bench-image
	@scripts/vm --name bench-erofs --timeout 3600 --disk /build/bench/erofs.img -- \
		/src/tools/bench/beside_stock /dev/vdb
	@echo '==> bench: once more, with a clock that counts instructions: a microsecond of the program is 1000 of them'
	@echo '    (what it waits for has no meaning there'
	@scripts/vm --name bench-erofs --timeout 3600 --count --disk /build/bench/erofs.img -- \
		/src/tools/bench/beside_stock /dev/vdb 1

bench-start: guest-modules daemon
	@scripts/make-start-image
	@scripts/vm --name bench-start --timeout 3600 --mem 3G -- /src/tools/bench/first_output $(REPETITIONS)

check: modules $(stamps)/cargo
	@scripts/check

# --- installing on this machine ---------------------------------------------

PREFIX ?= /usr/local
INSTALL_MOD_PATH ?= /
# Manual pages, completions, an example of a configuration.
share = $(DESTDIR)$(PREFIX)/share
# Installed, but not enabled.
unit = $(DESTDIR)$(PREFIX)/lib/systemd/system/demandd.service

install:
	@scripts/install-modules $(INSTALL_MOD_PATH)
	install -D -m 755 $(BUILD)/target/release/demandd $(DESTDIR)$(PREFIX)/sbin/demandd
	cd $(BUILD)/share && find . -type f -exec install -D -m 644 '{}' '$(share)/{}' \;
	install -D -m 644 tools/demandd/demandd.toml $(share)/doc/demandd/demandd.toml
	mkdir -p $(dir $(unit))
	sed 's,/usr/local/,$(PREFIX)/,' tools/demandd/systemd/demandd.service >$(unit)

uninstall:
	@scripts/install-modules --remove $(INSTALL_MOD_PATH)
	rm -f $(DESTDIR)$(PREFIX)/sbin/demandd $(share)/man/man8/demandd.8 $(share)/man/man8/demandd-*.8 \
		$(share)/bash-completion/completions/demandd $(share)/fish/vendor_completions.d/demandd.fish \
		$(share)/zsh/site-functions/_demandd $(share)/doc/demandd/demandd.toml $(unit)

clean:
	rm -rf $(addprefix $(BUILD)/,modules modules-debug clippy selftests bench whole matrix start target fuzz miri share vm out demo)

distclean:
	rm -rf $(BUILD)

.PHONY: help setup setup-debug modules modules-debug daemon selftests tree-image image-matrix guest-modules \
	guest-modules-debug demo test test-host test-vm test-debug stress kill-loop outage fuzz-device fuzz fuzz-images miri power-cut bench bench-backend bench-erofs bench-start check install uninstall clean distclean
