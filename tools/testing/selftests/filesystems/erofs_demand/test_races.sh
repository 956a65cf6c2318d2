#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Daemons come and go, images are mounted and unmounted, modules are unloaded, all at
# once and with small random delays: no read gets wrong bytes, everybody returns, and
# nothing is left of it.
#
# ROUNDS is how many times this is done, for 5 seconds each (default 6).
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/by_hand.sh"

load_modules
ROUNDS=${ROUNDS:-6} ROUND_SECONDS=5
plan $((2 * ROUNDS + 7))

# Those who are at the end of a round end within this time.
PATIENCE=30

# A round has its time; the last one goes on until everything has happened that can, or
# for four times as long as all of them took.
MORE_SECONDS=$((4 * ROUNDS * ROUND_SECONDS))
again() {
	[ "$(date +%s)" -lt "$end" ] || {
		[ "$round" = "$ROUNDS" ] && ! everything_happened && [ "$(date +%s)" -lt "$last_end" ]
	}
}
random() { shuf -i "$1-$2" -n 1; }
# pause MILLISECONDS: or less, and longer where all takes longer
pause() { sleep "$(random 0 $(($1 * SLOW)))e-3"; }
# How long a daemon or a reader lives at most, in milliseconds.
LIFE=1500
# happened WHAT: counts it
happened() { echo "$1" >>"$TMP/happened"; }
how_often() { grep -c -x "$1" "$TMP/happened"; }
mounts_and_reads_happened() {
	[ "$(how_often mounted)" -gt "$ROUNDS" ] && [ "$(how_often "refused E.*")" -gt "$ROUNDS" ] &&
		[ "$(how_often "read [02]")" -gt 0 ] && [ "$(how_often "read 137")" -gt 0 ]
}
daemons_happened() {
	while read -r how; do [ "$(how_often "daemon $how")" -gt 0 ] || return 1; done <"$TMP/ends"
}
everything_happened() { mounts_and_reads_happened && daemons_happened; }

# --- those who race ------------------------------------------------------------------

serve_by_demandd() {
	"$DEMANDD" serve --root "$CACHE" --source "$SOURCE" --tag "$TAG" "$@" >"$TMP/demandd" 2>&1 &
}
# A daemon that serves, for a while, and ends in some way: each time in another one, since
# chance would leave some out where there is time for few.
next_end() { sed -n "$(($(how_often "daemon .*") % $(wc -l <"$TMP/ends") + 1))p" "$TMP/ends"; }
daemons() {
	while again; do
		how=$(next_end)
		case $how in
		killed) serve_by_demandd --linger 0 && pause "$LIFE" && kill -KILL $! ;;
		"killed, others wait") serve_by_demandd --linger 1 && pause "$LIFE" && kill -KILL $! ;;
		terminated) serve_by_demandd --linger 1 && pause "$LIFE" && kill -TERM $! ;;
		unbinds) serve_by_demandd --unbind-at-exit && pause "$LIFE" && kill -TERM $! ;;
		"many hands: "*)
			"$PROGRAMS/many_hands" "$CACHE" "$TAG" "$(random 0 $((LIFE * SLOW)))" "${how#*: }" \
				"$(cache_file data)" "$SOURCE/data" "$(cache_file one.img)" "$SOURCE/one.img" \
				"$(cache_file two.img)" "$SOURCE/two.img" 2>"$TMP/many-hands" &
			;;
		esac 2>/dev/null || :
		wait $! && ended=0 || ended=$?
		happened "daemon $how"
		[ "$ended" != 2 ] || { cat "$TMP/many-hands" >>"$TMP/wrong"; happened wrong; }
		pause 300
	done
}

# What can be read is compared, block by block, by a reader that may be killed, or goes on to
# the end, however slow the machine is.
read_all() {
	life=$(random 1 $((LIFE * SLOW)))e-3
	[ "$(random 0 2)" != 0 ] || life=0
	timeout -s KILL "$life" "$PROGRAMS/blocks" read "$1/file" "$TMP/tree/file" \
		>"$TMP/read-${1##*/}" 2>/dev/null && read=0 || read=$?
	happened "read $read"
	[ "$read" != 1 ] || cat "$TMP/read-${1##*/}" >>"$TMP/wrong"
}
# mounts IMAGE DIRECTORY: again and again
mounts() {
	while again; do
		if mount_image "$1" device=data "$2" 2>/dev/null; then
			happened mounted
			read_all "$2" &
			pause 600
			case $(random 0 2) in
			0) umount -l "$2" ;;
			*) until umount "$2" 2>/dev/null; do pause 100; done ;;
			esac
			wait
		fi
		pause 100
	done
}
# Mounts that fail at one step or another.
failures() {
	while again; do
		for options in uuid=nowhere uuid=data uuid=one.img,device=nowhere uuid=one.img \
			uuid=one.img,device=data,device=data tag=other,uuid=one.img; do
			happened "refused $("$PROGRAMS/trymount" erofs "$TMP/failing" "tag=$TAG,$options")"
			pause 100
		done
	done
}
lookers() {
	while again; do
		cat /sys/kernel/debug/cachefiles_demand/* /proc/fs/fscache/* >/dev/null 2>&1 || :
		pause 50
	done
}
unloaders() {
	while again; do
		for module in erofs cachefiles_demand; do
			if rmmod "$module" 2>/dev/null; then happened "unloaded $module"; fi
		done
		modprobe -a cachefiles_demand erofs
		pause 400
	done
}

# --- a round of it -------------------------------------------------------------------------

start_racers() {
	end=$(($(date +%s) + ROUND_SECONDS * SLOW))
	last_end=$((end + MORE_SECONDS * SLOW))
	racers=''
	for racer in daemons "mounts one.img $MNT/1" "mounts two.img $MNT/2" "mounts one.img $MNT/3" \
		failures lookers unloaders; do
		$racer 3>&- &
		racers="$racers $!"
	done
}
everybody_ended() {
	for racer in $racers; do ended "$racer" || return 1; done
}
# Two lines at the top are headings.
nothing_in() { [ "$(wc -l <"/proc/fs/fscache/$1")" -le 2 ]; }
unload() { wait_for "$PATIENCE" module_unused "$1" && rmmod "$1"; }
nothing_left() {
	wait_for "$PATIENCE" nothing_in cookies && wait_for "$PATIENCE" nothing_in volumes &&
		wait_for "$PATIENCE" nothing_in caches &&
		unload erofs && unload cachefiles_demand && modprobe -a cachefiles_demand erofs
}
# Empty blobs again: those that are complete make no race.
empty_blobs() {
	rm -f "$(cache_file data)" "$(cache_file two.img)"
	prepare data two.img >/dev/null
}

# --- credentials ----------------------------------------------------------------------------

# How many of the kernel's credentials there are; nothing if they cannot be told apart.
credentials() { awk '$1 == "cred" || $1 == "cred_jar" { print $2 }' /proc/slabinfo; }
bind_and_unbind() {
	open_device
	for _ in $(seq "$1"); do
		tell "dir $CACHE" && tell "tag $TAG" && tell bind && tell unbind || return 1
	done
	close_device
}
no_more_credentials() {
	bind_and_unbind 20
	before=$(credentials)
	bind_and_unbind 500 || return 1
	note "$before credentials, $(credentials) after 500 binds"
	[ $(($(credentials) - before)) -lt 250 ]
}

make_images $((4 * MiB))
cp "$SOURCE/one.img" "$SOURCE/two.img"
prepare two.img >/dev/null
mkdir "$MNT/1" "$MNT/2" "$MNT/3" "$TMP/failing"
: >"$TMP/wrong"
: >"$TMP/happened"
shuf -e killed "killed, others wait" terminated unbinds \
	"many hands: unbind" "many hands: close" "many hands: exit" >"$TMP/ends"

for round in $(seq "$ROUNDS"); do
	empty_blobs
	start_racers
	check "round $round: everybody returns (T1 T6 T21 T22 T42 T43)" \
		wait_for $((ROUND_SECONDS + MORE_SECONDS + PATIENCE)) everybody_ended
	check "round $round: nothing is left, and the modules unload (T11 T13 T44 T45 T47)" nothing_left
done
sort "$TMP/happened" | uniq -c | while read -r line; do note "$line"; done
check "no read got wrong bytes, and no daemon an error that it must not" eval \
	'cat "$TMP/wrong" && fails [ -s "$TMP/wrong" ]'
check "there were mounts, refused mounts (T41, T51), reads that ended and reads that were killed" \
	mounts_and_reads_happened
check "there were daemons of every kind" daemons_happened
check "no cookie or volume met one of the same name (T43, T60)" \
	fails kernel_log_has 'Duplicate cookie|ollision'
if [ -n "$(credentials)" ]; then
	check "credentials are given back by unbind (T36)" no_more_credentials
else
	skip "credentials are given back by unbind (T36)" "this kernel does not count them"
fi
start_daemon
check "after all that an image is mounted (T48)" mount_image one.img device=data
check "and its file is right" cmp "$MNT/file" "$TMP/tree/file"
finish
