/* SPDX-License-Identifier: GPL-2.0 */
/* Results of a program that is a test of its own, in the form that KTAP has for them. */
#ifndef KTAP_H
#define KTAP_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How many results there were, and how many of them were wrong. */
static int count, failed;

static void check(const char *what, long got, long wanted)
{
	if (got != wanted) {
		printf("# got %ld, wanted %ld\n", got, wanted);
		failed++;
	}
	printf("%s %d %s\n", got == wanted ? "ok" : "not ok", ++count, what);
	fflush(stdout);
}

/* The test cannot go on, because of errno. */
static void die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

#endif
