#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What README tells a newcomer to type is typed here, word by word, and does what README says.
#
# Two commands are only half carried out. `apt install` looks whether the packages are there, and starts the web server as
# its package does. `make setup` and `make modules daemon`, which have made this guest, are read by make but not run.
# Everything is done in a mount namespace, so that what is installed goes with it.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

BUILD=${BUILD:-/build}
REPOSITORY=$(cd "${0%/*}/../../../../.." && pwd)
README=$REPOSITORY/README.md
[ -e "$README" ] || skip_all "not in the repository"
[ "$(cat "$BUILD/kver" 2>/dev/null)" = "$(uname -r)" ] || skip_all "no modules for this kernel in $BUILD"
for program in nginx dpkg make; do
	command -v "$program" >/dev/null || skip_all "there is no $program"
done
plan 7

# Of the kernel's modules, those that ours need: depmod would look at thousands.
MODULES=/usr/lib/modules/$(uname -r)
mkdir -p "$WORK/modules/kernel/fs"
cp -r "$MODULES/kernel/fs/netfs" "$WORK/modules/kernel/fs/"
cp "$MODULES"/modules.builtin "$MODULES"/modules.builtin.modinfo "$MODULES"/modules.order "$WORK/modules/"

# block N: the Nth block of commands below the heading.
block() {
	awk -v n="$1" '
		/^## / { here = $0 == "## From nothing to a mount" }
		here && /^```/ { inside = !inside; if (inside) number++; next }
		here && inside && number == n' "$README"
}

# What is there before the first command, and stands in for two of them.
prelude() {
	cat <<-END
		set -eu
		for place in /etc /usr/local; do
		    name=\$(echo "\$place" | tr / _)
		    mkdir -p "$WORK/over\$name/upper" "$WORK/over\$name/work"
		    mount -t overlay -o "lowerdir=\$place,upperdir=$WORK/over\$name/upper,workdir=$WORK/over\$name/work" over "\$place"
		done
		mkdir "$WORK/var-cache" "$WORK/html"
		mount --bind "$WORK/var-cache" /var/cache
		mount --bind "$WORK/html" /var/www/html
		mount --bind "$WORK/modules" "$MODULES"
		depmod
		export BUILD="$BUILD"
		cd "$REPOSITORY"
		apt() {
		    [ "\$1" = install ] && shift && dpkg -s "\$@" >/dev/null && nginx
		}
		make() {
		    case \$1 in setup | modules) set -- -n "\$@" ;; esac
		    command make "\$@"
		}
	END
}
# Between the blocks, and after them.
look() {
	cat <<-END
		diff -r Documentation /mnt && touch "$TMP/same"
		findmnt -n -o FSTYPE /mnt >"$TMP/type"
		cp /var/log/nginx/access.log "$TMP/access"
		command -v demandd >"$TMP/where"
	END
}
look_again() {
	cat <<-END
		findmnt /mnt || touch "$TMP/unmounted"
		hash -r
		command -v demandd || touch "$TMP/uninstalled"
	END
}

check "README has the commands" eval '[ -n "$(block 1)" ] && [ -n "$(block 2)" ]'
{ prelude && block 1 && look && block 2 && look_again; } >"$TMP/typed"
# What a command leaves running is not waited for, and does not keep the test's output open.
unshare --mount sh "$TMP/typed" >"$TMP/output" 2>&1 </dev/null && typed=0 || typed=$?
# shellcheck disable=SC2015 # it may not have been started
nginx -s stop 2>/dev/null && wait_for 10 fails test -e /run/nginx.pid || :
sed 's/^/# /' "$TMP/output"
check "they all succeed" equal "$typed" 0
check "the daemon is the one that was installed" equal "$(cat "$TMP/where")" /usr/local/sbin/demandd
check "an image is mounted" equal "$(cat "$TMP/type")" erofs
check "its files are those that it was made of" test -e "$TMP/same"
check "they came from the web server, in parts" grep -q '"GET /images/docs.blob HTTP/1.1" 206' "$TMP/access"
check "the last commands undo it" test -e "$TMP/unmounted" -a -e "$TMP/uninstalled"
finish
