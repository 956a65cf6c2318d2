/* SPDX-License-Identifier: GPL-2.0 */
/* What fuzz_device and stress share: time, processes, random numbers. */
#ifndef COMMON_H
#define COMMON_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

static inline void sleep_ms(unsigned int ms)
{
	usleep(ms * 1000);
}

/* The caller ends when its parent, which had this id, does. */
static inline void die_with_parent(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

/* The next random number (splitmix64). */
static inline uint64_t rnd(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* One of 0..below, or 0. */
static inline uint64_t rnd_below(uint64_t *state, uint64_t below)
{
	uint64_t z = rnd(state);

	return below ? z % below : 0;
}

static inline bool one_in(uint64_t *state, unsigned int n)
{
	return rnd_below(state, n) == 0;
}

#endif
