// SPDX-License-Identifier: GPL-2.0
/*
 * Call mount(2) and tell what it says: "0" or the name of the error. mount(8)
 * would translate it.
 *
 * usage: trymount [--remount] TYPE DIRECTORY OPTIONS [SOURCE]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

int main(int argc, char **argv)
{
	unsigned long flags = MS_RDONLY;

	if (argc > 1 && !strcmp(argv[1], "--remount")) {
		flags |= MS_REMOUNT;
		argv++;
		argc--;
	}
	if (argc != 4 && argc != 5) {
		fprintf(stderr, "usage: trymount [--remount] TYPE DIRECTORY OPTIONS [SOURCE]\n");
		return 2;
	}
	if (!mount(argc == 5 ? argv[4] : "none", argv[2], argv[1], flags, argv[3]))
		puts("0");
	else
		puts(strerrorname_np(errno));
	return 0;
}
