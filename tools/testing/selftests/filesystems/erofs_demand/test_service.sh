#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# As a service of systemd, with our unit and all that it forbids: the device stays open
# while the daemon is killed, restarted or hangs, and no read fails.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

UNIT=${UNIT:-/src/tools/demandd/systemd/demandd.service}
SYSTEMD=/lib/systemd/systemd
[ -x $SYSTEMD ] || skip_all "no systemd"
[ -e "$UNIT" ] || skip_all "no unit: give its path in UNIT"
load_modules
plan 21

# A systemd of the test's own: first process of a PID namespace, with /run and a control
# group of its own, and nothing to do but our unit.
GROUP=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/systemd
mkdir "$GROUP" "$WORK/units"
end_systemd() {
	[ -z "${manager:-}" ] || kill -KILL "$manager" 2>/dev/null
	wait_for 20 grep -q 'populated 0' "$GROUP/cgroup.events"
	find "$GROUP" -depth -type d -exec rmdir {} +
}
trap 'end_systemd || :; cleanup' EXIT

# Failures are counted at the end; the trap above has to end in them.
finish_test() {
	end_systemd
	trap cleanup EXIT
	finish
}

cat >"$WORK/demandd.toml" <<EOF
root = "$CACHE"
source = "$SOURCE"
tag = "$TAG"
trace = "$TRACE"
# Whenever the device is closed, who waits gets an error.
linger = 0
# Long enough to do something to it meanwhile.
delay-ms = 3000
workers = 1
EOF
sed "s,^ExecStart=.*,ExecStart=$DEMANDD serve --config $WORK/demandd.toml," "$UNIT" \
	>"$WORK/units/demandd.service"
# No logs but a file, and nothing to wait for that there is not.
mkdir "$WORK/units/demandd.service.d"
cat >"$WORK/units/demandd.service.d/test.conf" <<EOF
[Unit]
DefaultDependencies=no
Wants=
After=
[Service]
StandardOutput=append:$DAEMON_LOG
StandardError=append:$DAEMON_LOG
WatchdogSec=$((10 * SLOW))s
TimeoutAbortSec=1s
EOF
printf '[Unit]\nDefaultDependencies=no\n' >"$WORK/units/test.target"

start_systemd() {
	# shellcheck disable=SC2016 # for the inner shells
	sh -c 'echo $$ >"$1/cgroup.procs"
		exec unshare --mount --pid --cgroup --fork --kill-child sh -euc "
			mount -t proc proc /proc
			mount -t tmpfs run /run
			mount -t cgroup2 cgroup2 /sys/fs/cgroup
			mkdir -p /run/systemd
			cp -r \"\$1\" /run/systemd/system
			exec env container=test \"\$2\" --system --unit=test.target \
				--log-target=console --show-status=no" sh "$2" "$3"' \
		sh "$GROUP" "$WORK/units" "$SYSTEMD" >"$WORK/systemd.log" 2>&1 &
	outer=$!
	wait_for 20 started && wait_for 120 ctl -q is-active test.target
}
started() { manager=$(pgrep -P "$outer" -x systemd); }
in_system() { nsenter -t "$manager" -m -p "$@"; }
ctl() { in_system systemctl "$@"; }
property() { ctl show demandd -p "$1" --value; }
property_is() { equal "$(property "$1")" "$2"; }
kernel_says() { equal "$(sed -n 2p /sys/kernel/debug/cachefiles_demand/caches | cut -d ' ' -f 1)" "$1"; }
no_cache() { ! cache_bound; }

# The files of an image of which nothing is there yet, 64 KiB each.
mkdir "$TMP/tree"
for n in 1 2 3 4 5 6; do
	head -c 65536 /dev/urandom >"$TMP/tree/$n"
done
make_image app.img "$TMP/tree"
prepare app.img >/dev/null
read_file() { cmp "$MNT/$1" "$TMP/tree/$1"; }
# read_during FILE COMMAND...: begins to read, and ends when both have; true if both are well.
read_during() {
	read_file "$1" &
	reader=$!
	shift
	wait_for 20 daemon_fetches && "$@" || return 1
	wait "$reader"
}
daemon_fetches() { grep -q ' delivered ' /sys/kernel/debug/cachefiles_demand/requests; }

check "a systemd can be started" start_systemd
check "the service starts" ctl start demandd
check "it is started when the cache is bound" cache_bound
check "an image can be mounted and read" eval 'mount_image app.img && read_file 1'
check "systemd keeps the device" property_is NFileDescriptorStore 1
locked() { awk '/^VmLck/ { exit $2 == 0 }' "/proc/$(pgrep -P "$manager" -x demandd)/status"; }
check "with all that it may not do, its memory is locked" locked

restarted() { [ "$(property NRestarts)" -gt "$restarts" ]; }
kill_it() {
	restarts=$(property NRestarts)
	ctl kill -s KILL demandd
	wait_for 60 restarted
}
check "a read that the daemon is killed in gets its data from the next one" \
	read_during 2 kill_it
check "which systemd has given the device" property_is NFileDescriptorStore 1
check "the kernel saw no end of the daemon" fails kernel_log_has "its daemon is gone"
check "the service is well" wait_for 20 ctl -q is-active demandd
check "a read that the service is restarted in gets its data" read_during 3 ctl restart demandd

hang_it() {
	restarts=$(property NRestarts)
	ctl kill -s STOP demandd
	wait_for 120 restarted
}
check "a read that the daemon hangs in gets its data once the watchdog has bitten" \
	read_during 4 hang_it
check "no request has failed" fails grep -q "fail" "$TRACE"
check "the kernel says that a daemon is connected" kernel_says connected

check "the service can be stopped" ctl stop demandd
check "then the device is closed, and what is missing cannot be read" fails read_file 5
umount "$MNT"
check "nothing is left of the cache" wait_for 20 no_cache

# The configuration is in its usual place, but nowhere else than there.
mount_verb() {
	mkdir "$WORK/etc" && cp -a /etc/. "$WORK/demandd.toml" "$WORK/etc" &&
		in_system mount --bind "$WORK/etc" /etc &&
		in_system "$DEMANDD" mount app.img "$MNT"
}
check "\`demandd mount\` starts the service" mount_verb
check "it is active then" ctl -q is-active demandd
check "what is mounted can be read" in_system cmp "$MNT/5" "$TMP/tree/5"
in_system umount "$MNT"
ctl stop demandd
check "nothing is left of the cache, again" wait_for 20 no_cache
finish_test
