// SPDX-License-Identifier: GPL-2.0
/*
 * A daemon that is hostile: several threads that do to /dev/cachefiles_demand
 * whatever can be done to it. The one thing it never does is to put wrong bytes
 * into a cache file, since present bytes are believed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz_daemon.h"

/* Descriptors of the device that are open at a time. */
#define SLOTS 8
/* Requests that were delivered and have no answer yet. */
#define HELD 256

static _Atomic int slots[SLOTS];
static struct {
	pthread_mutex_t lock;
	record_t records[HELD];
	int n;
} held = { .lock = PTHREAD_MUTEX_INITIALIZER };

/*
 * What a daemon is like. One that is only wild gets nowhere: without a cache that
 * is bound there are no requests, and without right answers nothing is mounted.
 */
struct mood {
	const char *name;
	/* Answers that are right, of 16; and for each 16 requests taken, other doings. */
	unsigned int right, doings;
	/* One command of so many is any word of the grammar. */
	unsigned int orderly;
};

static const struct mood moods[] = {
	{ "a mostly good daemon", 14, 4, 16 },
	{ "a daemon that answers badly", 6, 8, 8 },
	{ "a wild daemon", 8, 64, 2 },
};

static const struct mood *mood;

/* --- descriptors ---------------------------------------------------------- */

int some_fd(struct thread *t)
{
	int first = below(t, SLOTS), i, fd;

	for (i = 0; i < SLOTS; i++) {
		fd = slots[(first + i) % SLOTS];
		if (fd >= 0)
			return fd;
	}
	return -1;
}

/* Keeps a descriptor, or closes it when there is no room. */
static void keep_fd(int fd)
{
	int i, none;

	for (i = 0; i < SLOTS; i++) {
		none = -1;
		if (atomic_compare_exchange_strong(&slots[i], &none, fd))
			return;
	}
	close(fd);
}

static void close_slot(int i)
{
	int fd = atomic_exchange(&slots[i], -1);

	if (fd >= 0)
		close(fd);
}

static void close_all(void)
{
	int i;

	for (i = 0; i < SLOTS; i++)
		close_slot(i);
}

void begin_upheaval(void)
{
	shared->upheavals_begun++;
}

void end_upheaval(void)
{
	shared->upheavals_ended++;
}

static int open_anew(struct thread *t)
{
	static const int modes[] = { O_RDWR, O_RDWR, O_RDWR | O_NONBLOCK, O_RDONLY, O_WRONLY };
	int fd;

	begin_upheaval();
	fd = open_device(chance(t, 4) ? pick(t, modes) : O_RDWR);
	end_upheaval();
	if (count("open", fd >= 0))
		keep_fd(fd);
	return fd;
}

static int open_slots(void)
{
	int i, n = 0;

	for (i = 0; i < SLOTS; i++)
		n += slots[i] >= 0;
	return n;
}

static void descriptors(struct thread *t)
{
	int fd = some_fd(t), copy;
	char path[64];

	switch (below(t, 6)) {
	case 0:
		copy = fcntl(fd, F_DUPFD_CLOEXEC, 500);
		if (count("dup", copy >= 0))
			keep_fd(copy);
		break;
	case 1:
	case 2:
		/* The last one ends the binding. */
		if (open_slots() > 1 && count("close one of several", true))
			close_slot(below(t, SLOTS));
		break;
	case 3:
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		copy = open(path, O_RDWR | O_CLOEXEC);
		if (count("open through /proc", copy >= 0))
			close(copy);
		break;
	case 4:
		if (!chance(t, 4))
			break;
		count("close all", true);
		close_all();
		/* fall through */
	default:
		open_anew(t);
	}
}

/* --- answers -------------------------------------------------------------- */

/* Answers a request; that no request is answered twice is checked here. */
static bool answer(int fd, uint64_t id, int error)
{
	bool taken = error ? command(fd, "fail %llu %d", (unsigned long long)id, error) :
			     command(fd, "done %llu", (unsigned long long)id);

	if (taken && atomic_exchange(&shared->answered[id % IDS], id) == id)
		violation("request %llu was answered twice", (unsigned long long)id);
	return taken;
}

uint64_t held_id(struct thread *t)
{
	uint64_t id;

	pthread_mutex_lock(&held.lock);
	id = held.n ? held.records[below(t, held.n)].id : 0;
	pthread_mutex_unlock(&held.lock);
	return id;
}

static void hold(const record_t *record)
{
	pthread_mutex_lock(&held.lock);
	if (held.n < HELD)
		held.records[held.n++] = *record;
	pthread_mutex_unlock(&held.lock);
}

static bool let_go(struct thread *t, record_t *record)
{
	bool found;
	int i;

	pthread_mutex_lock(&held.lock);
	found = held.n > 0;
	if (found) {
		i = below(t, held.n);
		*record = held.records[i];
		held.records[i] = held.records[--held.n];
	}
	pthread_mutex_unlock(&held.lock);
	return found;
}

static void fill_blocks(struct thread *t, const struct blob *blob, const record_t *record, bool all)
{
	uint64_t blocks = (record->len + BLOCK - 1) / BLOCK, i;

	/* From the end, so that the first ones are missing for longest. */
	for (i = blocks; i--;)
		if (all || chance(t, 2))
			fill(blob, record->off + i * BLOCK, BLOCK);
}

static void respond(struct thread *t, int fd, const record_t *record)
{
	const struct blob *blob = find_blob(record->path);

	switch (blob ? (below(t, 16) < mood->right ? 12 : below(t, 12)) : 0) {
	case 0:
		count("done without data", answer(fd, record->id, 0));
		return;
	case 1:
		fill(blob, record->off, record->len / BLOCK / 2 * BLOCK);
		count("done with the first half", answer(fd, record->id, 0));
		return;
	case 2:
		fill_blocks(t, blob, record, false);
		count("done with some blocks", answer(fd, record->id, 0));
		return;
	case 3:
	case 4:
		count("fail", answer(fd, record->id, 1 + below(t, 511)));
		return;
	case 5:
		fill(blob, record->off, record->len);
		count("fill, and hold the answer", true);
		hold(record);
		return;
	case 6:
		count("done before the data", answer(fd, record->id, 0));
		fill(blob, record->off, record->len);
		return;
	case 7:
		fill(blob, record->off, record->len);
		answer(fd, record->id, 0);
		count("answer twice", answer(fd, record->id, 0));
		count("fail after done", answer(fd, record->id, 5));
		return;
	case 8:
		count("hold", true);
		hold(record);
		return;
	case 9:
		count("forget", true);
		return;
	case 10:
		fill_blocks(t, blob, record, true);
		count("done, block by block", answer(fd, record->id, 0));
		return;
	case 11:
		fill(blob, record->off / (64 * BLOCK) * 64 * BLOCK, 64 * BLOCK + record->len);
		count("done with more than was asked for", answer(fd, record->id, 0));
		return;
	default:
		fill(blob, record->off, record->len);
		count("done", answer(fd, record->id, 0));
	}
}

/* A delivered record is as the header says, and was not delivered before. */
static void check_record(const record_t *record, uint64_t begun, bool calm)
{
	struct delivery *delivery = &shared->delivered[record->id % IDS];
	const struct blob *blob;
	uint64_t end = record->off + record->len;
	size_t i;

	for (i = strnlen(record->path, sizeof(record->path)); i < sizeof(record->path); i++)
		if (record->path[i])
			violation("the name in a record is not padded");
	blob = record->path[sizeof(record->path) - 1] ? NULL : find_blob(record->path);
	if (!blob) {
		violation("a record names the file '%.255s'", record->path);
		return;
	}
	if (!record->id || !record->len || record->off % BLOCK || end < record->off ||
	    end > blob->size || (record->len % BLOCK && end != blob->size))
		violation("record %llu: %llu bytes at %llu of %s, which has %llu",
			  (unsigned long long)record->id, (unsigned long long)record->len,
			  (unsigned long long)record->off, blob->name, (unsigned long long)blob->size);

	/* What overlaps an upheaval tells nothing. */
	calm = calm && begun == shared->upheavals_begun;
	if (calm && delivery->id == record->id && delivery->upheaval == begun)
		violation("request %llu was delivered twice", (unsigned long long)record->id);
	delivery->upheaval = calm ? begun : UINT64_MAX;
	delivery->id = record->id;
	if (record->id > shared->last_id)
		shared->last_id = record->id;
	shared->old_ids[record->id % OLD_IDS] = record->id;
}

/* Reads records: how many. */
static int take(int fd, void *buffer, size_t size)
{
	uint64_t ended = shared->upheavals_ended, begun = shared->upheavals_begun;
	ssize_t n = read(fd, buffer, size), i;
	record_t record;

	if (n <= 0)
		return 0;
	if (n % RECORD || (size_t)n > size) {
		violation("a read of %zu bytes gave %zd", size, n);
		return 0;
	}
	for (i = 0; i < n / (ssize_t)RECORD; i++) {
		memcpy(&record, (char *)buffer + i * RECORD, RECORD);
		check_record(&record, begun, begun == ended);
	}
	return n / RECORD;
}

static void take_and_respond(struct thread *t)
{
	struct epoll_event event;
	record_t record;
	int fd = some_fd(t), n, i;

	n = take(fd, t->buffer, (1 + below(t, 8)) * RECORD);
	count("take", n > 0);
	for (i = 0; i < n; i++) {
		memcpy(&record, t->buffer + i * RECORD, RECORD);
		respond(t, fd, &record);
	}
	if (n)
		return;
	if (chance(t, 4) && let_go(t, &record)) {
		count("answer late", answer(fd, record.id, chance(t, 4) ? 5 : 0));
	} else {
		event.events = chance(t, 2) ? EPOLLIN : EPOLLIN | EPOLLET;
		epoll_ctl(t->epoll, EPOLL_CTL_ADD, fd, &event);
		count("epoll wait", epoll_wait(t->epoll, &event, 1, below(t, 4)) > 0);
	}
}

/* --- commands ------------------------------------------------------------- */

static void try_word(struct thread *t, unsigned int word)
{
	int n = make_command(t, word), fd = some_fd(t);
	bool spoilt = chance(t, 8), taken;

	if (spoilt)
		n = spoil(t, n);
	/* A spoilt command may be one all the same. */
	if (word_is_upheaval(word) || spoilt)
		begin_upheaval();
	taken = write(fd, t->buffer, n) == n;
	if (word_is_upheaval(word) || spoilt)
		end_upheaval();
	count(spoilt ? "spoilt command" : command_word(word), taken);
	if (taken && n > CACHEFILES_DEMAND_COMMAND_MAX)
		violation("a command of %d bytes was taken", n);
	if (taken && memchr(t->buffer, 0, n))
		violation("a command with a NUL byte was taken");
}

/* Words that prepare a bind, or undo it, are fewer: while nothing is bound, nothing happens. */
static void random_command(struct thread *t)
{
	unsigned int first = chance(t, mood->orderly) ? 0 : first_word_of_service;

	try_word(t, first + below(t, number_of_words - first));
}

/* --- files ---------------------------------------------------------------- */

static void files(struct thread *t)
{
	const char *const elsewhere[] = { "/proc", world.root, world.mounts[0].dir, world.other_root };
	const struct blob *blob = &world.blobs[below(t, world.nblobs)];
	uint64_t blocks = (blob->size + BLOCK - 1) / BLOCK;

	switch (below(t, 8)) {
	case 0:
		if (shared->gentle || !chance(t, 8))
			return;
		count("replace a cache file", true);
		renew(blob, !chance(t, 4));
		return;
	case 1:
	case 2:
		if (chdir(chance(t, 8) ? pick(t, elsewhere) : blob->fan))
			return;
		if (chance(t, 2))
			count("inuse, in its directory", command(some_fd(t), "inuse D%s", blob->name));
		else if (count("cull, in its directory", command(some_fd(t), "cull D%s", blob->name)))
			renew(blob, true);
		return;
	default:
		count("fill what nobody asked for",
		      fill(blob, below(t, blocks) * BLOCK, (1 + below(t, 16)) * BLOCK));
	}
}

/* --- orders --------------------------------------------------------------- */

static void bind_as_it_should(struct thread *t, int fd)
{
	static const char *const limits[] = { "brun 7%", "bcull 5%", "bstop 1%", "frun 7%", "fcull 5%", "fstop 1%" };
	size_t i;

	if (chance(t, 4))
		for (i = 0; i < ARRAY_SIZE(limits); i++)
			command(fd, "%s", limits[i]);
	command(fd, "dir %s", world.root);
	command(fd, "tag %s", world.tag);
	if (count("bind as it should", command(fd, "bind")) || errno == EBUSY)
		return;
	/* Its directory or tag is another: only a new session has a choice. */
	close_all();
	fd = open_anew(t);
	command(fd, "dir %s", world.root);
	command(fd, "tag %s", world.tag);
	count("bind in a new session", command(fd, "bind"));
}

/* One of: what must be done to serve, in order, or with something in between. */
static void bind_in_some_order(struct thread *t)
{
	static const char *const orders[] = { "bind", "unbind", "dir /proc", "dir %s", "tag any", "linger 1" };
	int fd = some_fd(t), i;

	if (fd < 0)
		fd = open_anew(t);
	begin_upheaval();
	switch (below(t, 5)) {
	case 0:
		count("unbind, bind", command(fd, "unbind") && command(fd, "dir %s", world.root) &&
		      command(fd, "tag %s", world.tag) && command(fd, "bind"));
		break;
	case 1:
		command(fd, "dir %s", world.other_root);
		command(fd, "tag other");
		count("bind another cache", command(fd, "bind"));
		break;
	case 2:
		for (i = 0; i < 3; i++)
			command(fd, pick(t, orders), world.root);
		count("bind, in any order", command(fd, "bind"));
		break;
	default:
		bind_as_it_should(t, fd);
	}
	end_upheaval();
}

/* --- the daemon ----------------------------------------------------------- */

static const struct {
	void (*do_it)(struct thread *t);
	unsigned int weight;
} doings[] = {
	{ random_command, 60 },
	{ odd_read, 8 },
	{ odd_write, 10 },
	{ wait_oddly, 20 },
	{ odd_call, 8 },
	{ descriptors, 6 },
	{ bind_in_some_order, 12 },
	{ files, 20 },
	{ wait_for_itself, 1 },
};

static void operate(struct thread *t)
{
	unsigned int sum = 0, at, i;

	if (below(t, 16 + mood->doings) < 16) {
		take_and_respond(t);
		return;
	}
	for (i = 0; i < ARRAY_SIZE(doings); i++)
		sum += doings[i].weight;
	at = below(t, sum);
	for (i = 0; at >= doings[i].weight; i++)
		at -= doings[i].weight;
	doings[i].do_it(t);
}

static void *run_thread(void *seed)
{
	struct thread t = { .rnd = (uintptr_t)seed, .epoll = epoll_create1(EPOLL_CLOEXEC) };
	long page = sysconf(_SC_PAGESIZE);

	t.buffer = malloc(2 * COMMAND_ROOM);
	t.edge = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!t.buffer || t.edge == MAP_FAILED || mprotect(t.edge + 2 * page, page, PROT_NONE))
		die("cannot get memory");
	/* A working directory of its own, for cull and inuse. */
	if (unshare(CLONE_FS))
		die("cannot unshare");
	while (!shared->daemon_stop)
		operate(&t);
	close(t.epoll);
	return NULL;
}

void hostile_daemon(uint64_t seed)
{
	pthread_t threads[16];
	struct thread t = { .rnd = seed, .buffer = malloc(2 * COMMAND_ROOM) };
	unsigned int word;
	int i;

	for (i = 0; i < SLOTS; i++)
		slots[i] = -1;
	mood = &pick(&t, moods);
	count(mood->name, true);
	open_anew(&t);
	if (mood == &moods[ARRAY_SIZE(moods) - 1])
		for (word = 0; word < number_of_words; word++)
			try_word(&t, word);
	if (!chance(&t, 6)) {
		begin_upheaval();
		bind_as_it_should(&t, some_fd(&t));
		end_upheaval();
	}
	for (i = 0; i < world.threads; i++)
		if (pthread_create(&threads[i], NULL, run_thread, (void *)(uintptr_t)rnd(&t.rnd)))
			die("cannot start a thread");
	for (i = 0; i < world.threads; i++)
		pthread_join(threads[i], NULL);
	if (chance(&t, 2))
		close_all();
	_exit(0);
}

/* --- one that is not hostile ---------------------------------------------- */

static void serve(int fd, uint64_t until)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	record_t records[16];
	int n, i;

	while (!shared->daemon_stop && now_ms() < until) {
		if (poll(&pfd, 1, 10) <= 0)
			continue;
		n = take(fd, records, sizeof(records));
		for (i = 0; i < n; i++) {
			const struct blob *blob = find_blob(records[i].path);
			bool filled = blob && fill(blob, records[i].off, records[i].len);

			count("honest answer", answer(fd, records[i].id, filled ? 0 : EIO));
		}
	}
}

void serve_for(int fd, unsigned int ms)
{
	serve(fd, now_ms() + ms);
}

void honest_daemon(void)
{
	int fd;

	begin_upheaval();
	fd = open_device(O_RDWR);
	if (fd < 0 || !command(fd, "dir %s", world.root) || !command(fd, "tag %s", world.tag) ||
	    !command(fd, "bind"))
		die("cannot bind the cache for a good daemon");
	end_upheaval();
	serve(fd, UINT64_MAX);
	_exit(0);
}
