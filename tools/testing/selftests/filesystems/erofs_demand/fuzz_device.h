/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of fuzz_device share: fuzz_device.c (the epochs, and what is
 * checked between them), fuzz_daemon.c (the hostile daemon; see fuzz_daemon.h),
 * fuzz_readers.c (who suffers from it) and fuzz_world.c (what all of them know).
 * Daemon, readers and the like are processes of their own; what stands in struct
 * shared is seen by all of them.
 */
#ifndef FUZZ_DEVICE_H
#define FUZZ_DEVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <linux/cachefiles_demand.h>

#include "common.h"

#define BLOCK CACHEFILES_DEMAND_BLOCK
#define RECORD sizeof(struct cachefiles_demand_req)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define MAX_BLOBS 16
#define MAX_MOUNTS 8
#define MAX_NODES 512
#define MAX_READERS 64
#define MAX_COUNTERS 192
/* Powers of two: where an id, modulo the size, has its place. */
#define IDS 65536
#define OLD_IDS 256

typedef struct cachefiles_demand_req record_t;

/* --- the world: made before the first fork, then constant ----------------- */

/* A blob: what the daemon serves, and the cache file that it should fill. */
struct blob {
	char name[256];
	const unsigned char *data;
	uint64_t size;
	/* The fan directory with its cache file "D<name>". */
	char fan[512];
	/* The cache file's attribute. */
	char mark[64];
	ssize_t mark_size;
};

/* A file or directory of a mount, and what it must be like. */
struct node {
	char *path;
	struct stat stat;
	/* Of regular files: the content. Of directories: how many names, with "." and "..". */
	const unsigned char *data;
	int names;
};

struct mount {
	char options[512], dir[512], tree[512];
	struct node nodes[MAX_NODES];
	int nnodes;
};

struct world {
	const char *root, *other_root, *tag, *source;
	/* The file system that mounts are made on. */
	dev_t below;
	struct blob blobs[MAX_BLOBS];
	int nblobs;
	struct mount mounts[MAX_MOUNTS];
	int nmounts;
	int threads, nreaders;
	uint64_t seed, limit_ms;
	/* Whether the kernel knows these commands. */
	bool linger, unbind, timeout;
};

extern struct world world;

/* --- shared by all processes ---------------------------------------------- */

/* Somebody who may have to wait for the daemon. */
struct actor {
	_Atomic int pid;
	/* When the call was begun that it is in; 0 when it is in none. */
	_Atomic uint64_t since;
	_Atomic(const char *) what;
	_Atomic int mount, node;
	_Atomic uint64_t offset, length;
};

struct counter {
	_Atomic(const char *) name;
	_Atomic uint64_t tried, succeeded;
};

struct delivery {
	_Atomic uint64_t id, upheaval;
};

struct shared {
	/* Readers rest; mounts stay as they are; all end; the daemon ends. */
	_Atomic int pause, moored, stop, daemon_stop;
	/* Cache files stay where they are, as they are. */
	_Atomic int gentle;
	_Atomic uint64_t violations;
	_Atomic uint64_t reads, read_bytes, lists, kills;
	_Atomic uint64_t read_errors[512];
	_Atomic uint64_t answered[IDS];
	struct delivery delivered[IDS];
	_Atomic uint64_t old_ids[OLD_IDS], last_id;
	/*
	 * Calls after which a request may be delivered again (restore, bind,
	 * open): how many were begun, and ended.
	 */
	_Atomic uint64_t upheavals_begun, upheavals_ended;
	/* Daemons that use a mount themselves, which is not taken away then. */
	_Atomic int pinned[MAX_MOUNTS], detaching[MAX_MOUNTS];
	struct counter counters[MAX_COUNTERS];
	/* Its number of process is 0 while it rests. */
	struct actor mounter;
	struct actor readers[MAX_READERS];
};

extern struct shared *shared;

/* --- fuzz_device.c -------------------------------------------------------- */

/* A promise of the kernel is broken: say how; the run has failed. */
__attribute__((format(printf, 1, 2))) void violation(const char *format, ...);
/* This program cannot go on. */
__attribute__((noreturn)) void die(const char *what);
/* Counts a try of something; `name` is a string constant. Returns `succeeded`. */
bool count(const char *name, bool succeeded);

/* Opens the device under a number that no other file has. */
int open_device(int flags);
/* Writes one command: whether it was taken. */
__attribute__((format(printf, 2, 3))) bool command(int fd, const char *format, ...);

/* --- fuzz_world.c --------------------------------------------------------- */

/* All files of the source, which must be prepared. */
void add_blobs(void);
/* TREE:OPTIONS, in a directory of its own below that one. */
void add_mount(const char *argument, const char *mounts_dir);
const struct blob *find_blob(const char *cache_file_name);
/* Writes a range of a blob, in whole blocks and right, to its cache file. */
bool fill(const struct blob *blob, uint64_t off, uint64_t len);
/* Puts a new cache file, all hole, in the place of the blob's. */
void renew(const struct blob *blob, bool with_mark);

/* --- fuzz_daemon.c, fuzz_grammar.c ---------------------------------------- */

/* The life of a daemon; ends when shared->daemon_stop is set. */
void hostile_daemon(uint64_t seed);
/* The n-th word of the grammar, or NULL. */
const char *command_word(unsigned int n);
/* One that does what it should until shared->daemon_stop is set. */
void honest_daemon(void);
/* Answers as it should what waits on `fd`, for so long. */
void serve_for(int fd, unsigned int ms);

/* --- fuzz_readers.c ------------------------------------------------------- */

/* Keeps readers running, and kills some. */
void readers(uint64_t seed);
/* Mounts and unmounts. */
void mounter(uint64_t seed);
/* Drops caches and looks at everything that can be looked at. */
void nuisance(uint64_t seed);
/* One mount(2) by a child process, which may be killed: whether it is there. */
bool mount_once(int i, const char *options, unsigned int kill_after_ms);
bool is_mounted(int i);

#endif
