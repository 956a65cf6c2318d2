/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the hostile daemon share: fuzz_daemon.c (what it does),
 * fuzz_grammar.c (commands) and fuzz_odd.c (calls that nobody should make).
 */
#ifndef FUZZ_DAEMON_H
#define FUZZ_DAEMON_H

#include "fuzz_device.h"

/* Room for a command, in bytes: more than any can have. */
#define COMMAND_ROOM (64 * 1024)

struct thread {
	uint64_t rnd;
	int epoll;
	/* Two pages of memory, and one behind that cannot be touched. */
	char *edge;
	/* Twice the room for a command. */
	char *buffer;
};

static inline uint64_t below(struct thread *t, uint64_t n)
{
	return rnd_below(&t->rnd, n);
}

static inline bool chance(struct thread *t, unsigned int n)
{
	return one_in(&t->rnd, n);
}

#define pick(t, array) ((array)[below(t, ARRAY_SIZE(array))])

/* --- fuzz_daemon.c ---------------------------------------------------------- */

/* Any descriptor of the device, or -1; another thread may be closing it. */
int some_fd(struct thread *t);
/* The id of a request that was delivered and has no answer yet, or 0. */
uint64_t held_id(struct thread *t);
/* What comes between may make the kernel deliver requests again. */
void begin_upheaval(void);
void end_upheaval(void);

/* --- fuzz_grammar.c --------------------------------------------------------- */

/* Words before this one prepare a bind, or undo it. */
extern const unsigned int first_word_of_service, number_of_words;
/* Whether requests may be delivered again after the n-th word. */
bool word_is_upheaval(unsigned int word);
/* A command with that word, into the thread's buffer: its size. */
int make_command(struct thread *t, unsigned int word);
/* Makes it something that is nearly a command: its size. */
int spoil(struct thread *t, int size);

/* --- fuzz_odd.c ------------------------------------------------------------- */

/* Each is one call, or a few, on a descriptor of the device. */
void odd_read(struct thread *t);
void odd_write(struct thread *t);
void wait_oddly(struct thread *t);
void odd_call(struct thread *t);
void wait_for_itself(struct thread *t);

#endif
