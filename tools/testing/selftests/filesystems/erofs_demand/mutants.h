/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of mutants share; see mutants.c. */
#ifndef MUTANTS_H
#define MUTANTS_H

#include <stdio.h>

/*
 * Look at everything below a mount point, within bounds, and write a line for
 * each answer: number, path, item, and the answer.
 */
void walk(FILE *out, const char *number, const char *root);

/* The name of an error. */
const char *error_name(int error);

#endif
