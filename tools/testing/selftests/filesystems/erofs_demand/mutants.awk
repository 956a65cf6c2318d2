# SPDX-License-Identifier: GPL-2.0
# Compare what two modules said to the same damaged images.
#
# Files: classes of differences, changes (image-mutate), the kernel's log of ours, the
# answers of the kernel's own module, ours. Prints a line for each class, how often
# there were such, and each difference that has no class. The status is 1 if there is
# one of these.
#
# A class is: name, item, answer of ours, answer of the other module, all but the name as
# regular expressions, and one for what our log says of the mutant, or the change: "-"
# stands for anything.
BEGIN { FS = "\t" }
FILENAME != file { file = FILENAME; nth++ }

nth == 1 && !/^#/ && NF == 5 {
	classes++
	name[classes] = $1; item[classes] = $2; ours[classes] = $3; theirs[classes] = $4; says[classes] = $5
}
nth == 2 { change[$1] = $2 ": " $3 }
nth == 3 && match($0, /batch\/[0-9]+/) {
	number = substr($0, RSTART + 6, RLENGTH - 6)
	sub(/.*corrupted image: |.*"\): /, "")
	if (length(log_of[number]) < 4000) log_of[number] = log_of[number] $0 "\n"
}
nth == 4 && $3 == "limit" { limit[$1] = 1; next }
nth == 4 { stock[$1 FS $2 FS $3] = $4 }
nth == 5 && $3 == "limit" { limit[$1] = 1; next }
nth == 5 {
	key = $1 FS $2 FS $3
	asked[key] = 1
	if (!(key in stock)) { missing[key] = $4; next }
	answers++
	if (stock[key] != $4) difference(key, $4, stock[key])
}

function difference(key, mine, other,    part, c) {
	split(key, part, FS)
	differs[part[1] FS part[2]] = 1
	for (c = 1; c <= classes; c++)
		if (part[3] ~ "^(" item[c] ")$" && mine ~ "^(" ours[c] ")$" && other ~ "^(" theirs[c] ")$" &&
		    (says[c] == "-" || (change[part[1]] "\n" log_of[part[1]]) ~ says[c])) {
			count[name[c]]++
			return
		}
	unknown(key, mine, other)
}

function unknown(key, mine, other,    part) {
	split(key, part, FS)
	unknowns++
	printf "unknown: %s %s: ours %s, the kernel's own %s\n", part[2], part[3], mine, other
	if (told[part[1]]++) return
	printf "  seed %s: %s\n", part[1], substr(change[part[1]], 1, 300)
	if (log_of[part[1]] != "") printf "  log: %s\n", substr(log_of[part[1]], 1, 400)
}

# Whether something differs in a place, or in one that it is below of.
function explained(number, path) {
	for (;;) {
		if ((number FS path) in differs || (number FS "-") in differs) return 1
		if (path == "/" || path == "-") return 0
		if (!sub(/\/[^\/]*$/, "", path)) return 0
		if (path == "") path = "/"
	}
}

END {
	# What only one of them has come to follows from a difference above it.
	for (key in missing) {
		split(key, part, FS)
		if (part[1] in limit || explained(part[1], part[2])) follow++
		else unknown(key, missing[key], "nothing")
	}
	for (key in stock) {
		if (key in asked) continue
		split(key, part, FS)
		if (part[1] in limit || explained(part[1], part[2])) follow++
		else unknown(key, "nothing", stock[key])
	}
	for (c = 1; c <= classes; c++)
		if (name[c] in count) {
			printf "difference: %s: %d\n", name[c], count[name[c]]
			delete count[name[c]]
		}
	printf "answers compared: %d, that follow from a difference: %d, without a class: %d\n", \
		answers, follow, unknowns
	exit unknowns > 0
}
