/* SPDX-License-Identifier: GPL-2.0 */
/* Times in microseconds, for the programs that measure. */
#ifndef BENCH_CLOCK_H
#define BENCH_CLOCK_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static inline double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

/* Processor time that this program has used. */
static inline double used_us(void)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6 +
	       used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}

/* Time that the processors were idle, all of them together. */
static inline double idle_us(void)
{
	FILE *stat = fopen("/proc/stat", "r");
	double idle, iowait;

	if (!stat || fscanf(stat, "cpu %*s %*s %*s %lf %lf", &idle, &iowait) != 2) {
		perror("/proc/stat");
		exit(1);
	}
	fclose(stat);
	return (idle + iowait) / sysconf(_SC_CLK_TCK) * 1e6;
}

#endif
