// SPDX-License-Identifier: GPL-2.0
/*
 * Call mount(2) and tell what it says: "0" or the name of the error. mount(8)
 * would translate it.
 *
 * usage: trymount TYPE DIRECTORY OPTIONS
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: trymount TYPE DIRECTORY OPTIONS\n");
		return 2;
	}
	if (!mount("none", argv[2], argv[1], MS_RDONLY, argv[3]))
		puts("0");
	else
		puts(strerrorname_np(errno));
	return 0;
}
