#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What an image says of rights is heeded, on images that arrive on demand and on those in files:
# modes, programs with the rights of others, capabilities, access control lists, all of it also
# where a mount maps ids; and nobody can change anything. As with the kernel's own erofs.ko.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

need_stock_module
plan 46

REFUSED=${0%/*}/refused.py
# cap_net_raw, effective: bit 13.
CAPABILITY=0x0100000200200000000000000000000000000000
MAPPED=$TMP/mapped

make_tree() {
	mkdir -p "$1/dir" "$1/closed"
	for name in program setuid setgid capable; do cp "$(command -v cat)" "$1/$name"; done
	chown 1001:0 "$1/setuid"
	chmod 4755 "$1/setuid"
	chown 0:1002 "$1/setgid"
	chmod 2755 "$1/setgid"
	setfattr -n security.capability -v $CAPABILITY "$1/capable"
	for name in file other own group listed unlisted closed/file; do echo text >"$1/$name"; done
	setfattr -n user.name -v value "$1/file"
	chown 1000:1000 "$1/own"
	chmod 600 "$1/own" "$1/listed"
	chown 0:1003 "$1/group"
	chmod 640 "$1/group"
	setfacl -m u:1000:r "$1/listed"
	setfacl -m u:1000:- "$1/unlisted"
	chmod 700 "$1/closed"
	setfacl -m u:1000:x "$1/closed"
}

# as ID COMMAND [ARG]...: in the groups that $groups is an option for.
groups=--clear-groups
as() {
	id=$1
	shift
	setpriv --reuid "$id" --regid "$id" "$groups" "$@"
}
may_read() { as "$1" cat "$2" >"$TMP/read" && equal "$(cat "$TMP/read")" text; }
may_not_read() { as "$1" cat "$2" 2>&1 | grep "Permission denied"; }
# status PROGRAM KEY: of a process that runs it for the user 1000.
status() { as 1000 "$1" /proc/self/status | sed -n "s/^$2:[[:space:]]*//p" | tr '\t' ' '; }
# map IDS: the mount once more, with ids mapped; "b:0:100000:65536" shows 0 as 100000.
map() { mount --bind -o "X-mount.idmap=$1" "$MNT" "$MAPPED"; }
owners() { (cd "$1" && find . -printf '%P %m %U:%G\n' | sort && getfacl -n -R . 2>&1); }

# told: all that is compared with the kernel's own module.
told() {
	"$REFUSED" "$MNT"
	owners "$MNT"
	for program in setuid setgid capable; do
		for key in Uid Gid CapEff; do status "$MNT/$program" $key; done
	done
	for ids in b:0:100000:65536 b:1000:0:1; do
		map $ids || return 1
		owners "$MAPPED"
		for program in setuid setgid capable; do
			for key in Uid Gid CapEff; do status "$MAPPED/$program" $key; done
		done
		umount "$MAPPED"
	done
}

mkdir "$MAPPED"
# Users who are not root must get to the mounts.
chmod 755 "$WORK" "$TMP"
make_tree "$TMP/tree"
make_image rights.img "$TMP/tree"
cp "$SOURCE/rights.img" "$TMP/file.img"

check "the kernel's own module can be loaded" load_stock_module
stock_told() {
	mount -t erofs -o ro,loop "$TMP/file.img" "$MNT" || return
	told >"$TMP/stock" 2>&1 || { tail -n 5 "$TMP/stock"; umount "$MNT"; return 1; }
	umount "$MNT"
}
check "and tells what it heeds" stock_told
unload_erofs

load_modules
prepare >/dev/null
start_daemon

mount_demand() { mount_image rights.img "${1:-}"; }
mount_file() { mount -t erofs -o "ro${1:+,$1}" "$TMP/file.img" "$MNT"; }
for kind in file demand; do
	mount_$kind
	check "$kind: a program has the user of its file" \
		equal "$(status "$MNT/setuid" Uid)" "1000 1001 1001 1001"
	check "$kind: or its group" equal "$(status "$MNT/setgid" Gid)" "1000 1002 1002 1002"
	check "$kind: or capabilities of its file" \
		equal "$(status "$MNT/capable" CapEff)" 0000000000002000
	check "$kind: and another one has not" equal "$(status "$MNT/program" CapEff)" 0000000000000000
	check "$kind: a user reads what is his" may_read 1000 "$MNT/own"
	check "$kind: and nobody else" may_not_read 1001 "$MNT/own"
	groups=--groups=1003
	check "$kind: those in the group read what is the group's" may_read 1001 "$MNT/group"
	groups=--clear-groups
	check "$kind: and others do not" may_not_read 1001 "$MNT/group"
	check "$kind: who is in the list reads" may_read 1000 "$MNT/listed"
	check "$kind: who is not does not" may_not_read 1001 "$MNT/listed"
	check "$kind: who is in the list to be kept out does not, where others do" eval \
		'may_not_read 1000 "$MNT/unlisted" && may_read 1001 "$MNT/unlisted"'
	check "$kind: a list on a directory lets in" may_read 1000 "$MNT/closed/file"
	check "$kind: and keeps out" may_not_read 1001 "$MNT/closed/file"
	map b:0:100000:65536
	check "$kind: where ids are mapped, owners are" equal "$(stat -c %u:%g "$MAPPED/own")" 101000:101000
	check "$kind: and it is they who read" may_read 101000 "$MAPPED/own"
	check "$kind: and nobody else does" may_not_read 1000 "$MAPPED/own"
	check "$kind: so it is with lists" eval \
		'may_read 101000 "$MAPPED/listed" && may_not_read 1000 "$MAPPED/listed"'
	check "$kind: and with programs" equal "$(status "$MAPPED/setuid" Uid)" "1000 101001 101001 101001"
	check "$kind: and capabilities are not for those who are not mapped" \
		equal "$(status "$MAPPED/capable" CapEff)" 0000000000000000
	umount "$MAPPED"
	# What goes wrong can be seen in what is told.
	told >"$TMP/ours" 2>&1 || :
	check "$kind: all of this is as with the kernel's own module" diff "$TMP/stock" "$TMP/ours"
	check "$kind: 15 ways to change something are refused" \
		equal "$(grep -c -x -e '[a-z ]*: E[A-Z]*' "$TMP/ours")" 15
	umount "$MNT"
	mount_$kind noacl
	check "$kind: without access control lists only the mode counts" eval \
		'may_not_read 1000 "$MNT/listed" && may_read 1000 "$MNT/unlisted"'
	umount "$MNT"
done
finish
