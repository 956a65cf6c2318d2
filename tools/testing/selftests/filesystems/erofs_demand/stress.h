/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of stress share: stress.c (who starts, kills and watches),
 * stress_daemon.c (a daemon that is slow, unordered and sometimes fails) and
 * stress_readers.c (who reads, and who takes the caches away). Each part is
 * processes of its own; what stands in struct shared is seen by all of them.
 */
#ifndef STRESS_H
#define STRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/cachefiles_demand.h>

#include "common.h"

#define BLOCK CACHEFILES_DEMAND_BLOCK
#define MAX_IMAGES 16
#define MAX_BLOBS 8
#define MAX_READERS 256
/* Every image is mounted so many times: each mount has a page cache of its own. */
#define TWINS 2

/* --- the world: made before the first fork, then constant --------------------- */

/* A blob: what the daemon serves, and the cache file that it fills. */
struct blob {
	char name[64];
	/* Where the bytes come from, and the cache file. */
	char source[512], cache_file[512];
	uint64_t size;
	/* The cache file's attribute. */
	char mark[64];
	ssize_t mark_size;
};

/* A file of known content. */
struct file {
	char path[128];
	unsigned int number;
	uint64_t size;
};

/* An image: the first blob is its bootstrap; each other one holds one file. */
struct image {
	char options[512], dirs[TWINS][512];
	struct blob blobs[MAX_BLOBS];
	struct file files[MAX_BLOBS];
	int nblobs, nfiles;
};

struct world {
	const char *root, *tag;
	struct image images[MAX_IMAGES];
	int nimages, nreaders;
	uint64_t seed, limit_ms, grace_ms;
};

extern struct world world;

/* --- shared by all processes ----------------------------------------------------- */

/* Somebody who may have to wait for the daemon. */
struct actor {
	_Atomic int pid;
	/* When the call was begun that it is in; 0 when it is in none. */
	_Atomic uint64_t since;
	_Atomic(const char *) what;
	/* The image; where in the file `number`. */
	_Atomic int image;
	_Atomic unsigned int number;
	_Atomic uint64_t offset, length;
};

struct shared {
	/* Readers end; the rest ends; the daemon may fail requests. */
	_Atomic int stop, stop_rest, failing;
	_Atomic uint64_t wrong, lost, violations;
	_Atomic uint64_t reads, mapped_reads, read_bytes, errors;
	_Atomic uint64_t requests, fills, fails, unordered, restores, refused;
	_Atomic uint64_t kills, rotations, drops;
	/* The last time that somebody may have been given an error. */
	_Atomic uint64_t last_fail_ms;
	/* Set by a daemon that serves. */
	_Atomic int serving;
	/* Held for reading by readers of the image, for writing while it is unmounted. */
	pthread_rwlock_t mounted[MAX_IMAGES];
	/* Somebody waits to unmount the image. */
	_Atomic int wanted[MAX_IMAGES];
	struct actor rotator, readers[MAX_READERS];
};

extern struct shared *shared;

/* --- stress.c ---------------------------------------------------------------------- */

/* A promise is broken: say how; the run has failed. */
__attribute__((format(printf, 1, 2))) void violation(const char *format, ...);
/* This program cannot go on. */
__attribute__((noreturn)) void die(const char *what);

/* The calls of an actor that may have to wait for the daemon. */
void begin(struct actor *actor, const char *what, int image, unsigned int number,
	   uint64_t offset, uint64_t length);
void end(struct actor *actor);
/* Counts an error of a call that began then: EIO, if a request may have failed since. */
void note_error(const struct actor *actor, uint64_t begun, int error);

/*
 * The content of file `number`: every eight bytes, as a little-endian number, are
 * a hash of where they are. Only known to who makes the files and who reads them:
 * the daemon copies.
 */
uint64_t content(unsigned int number, uint64_t word);

/* --- stress_daemon.c ----------------------------------------------------------------- */

/* The life of a daemon: until it is killed. */
__attribute__((noreturn)) void chaotic_daemon(uint64_t seed);

/* --- stress_readers.c ---------------------------------------------------------------- */

/* Reads until shared->stop is set. */
__attribute__((noreturn)) void reader(struct actor *self, uint64_t seed);
/* Unmounts one image after the other, takes away what its cache has, mounts it again. */
__attribute__((noreturn)) void rotator(uint64_t seed);
/* Drops page caches. */
__attribute__((noreturn)) void dropper(uint64_t seed);
/* Mounts one image in all its places; returns whether it did. */
bool mount_image(struct actor *self, int image);

#endif
