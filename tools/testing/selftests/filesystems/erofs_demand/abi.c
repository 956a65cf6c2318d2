// SPDX-License-Identifier: GPL-2.0
/*
 * The promises of include/uapi/linux/cachefiles_demand.h, kept to by the
 * compiler and by the running kernel.
 *
 * usage: abi CACHE-ROOT TAG FILE CACHE-FILE PLACES
 *
 * FILE is on a mount that uses the cache TAG in CACHE-ROOT, which has no daemon;
 * its bytes are those of CACHE-FILE, and all are missing. PLACES is a directory
 * with places that cannot hold a cache, see bad_places, and one that can: "good".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/cachefiles_demand.h>

#include "ktap.h"
#include <linux/capability.h>

_Static_assert(sizeof(struct cachefiles_demand_req) == 280, "size of a record");
_Static_assert(offsetof(struct cachefiles_demand_req, id) == 0, "offset of id");
_Static_assert(offsetof(struct cachefiles_demand_req, off) == 8, "offset of off");
_Static_assert(offsetof(struct cachefiles_demand_req, len) == 16, "offset of len");
_Static_assert(offsetof(struct cachefiles_demand_req, path) == 24, "offset of path");

#define BLOCK CACHEFILES_DEMAND_BLOCK
#define RECORD 280
#define PLAN 143
/* How long something may take that should happen at once. */
#define PATIENCE_MS 10000

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

typedef struct cachefiles_demand_req record_t;

static const char *root, *tag, *cache_file_name;
static int device, file, cache_file;
/* The largest id so far. */
static uint64_t last_id;

/* --- the device: what a call returns, or the error as a negative number ---- */

static long result(long n)
{
	return n < 0 ? -errno : n;
}

static long try_open(void)
{
	int fd = open(CACHEFILES_DEMAND_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? -errno : 0;
}

static void open_device(void)
{
	device = open(CACHEFILES_DEMAND_DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0)
		die("cannot open the device");
}

static long command_bytes(const char *text, size_t size)
{
	return result(write(device, text, size));
}

/* All of a command is taken or nothing: 0 or an error. */
static long command(const char *text)
{
	long n = command_bytes(text, strlen(text));

	return n == (long)strlen(text) ? 0 : n;
}

static long command_with(const char *word, const char *argument)
{
	char text[CACHEFILES_DEMAND_COMMAND_MAX + 1];

	snprintf(text, sizeof(text), "%s %s", word, argument);
	return command(text);
}

static long answer(const char *format, uint64_t id)
{
	char text[128];

	snprintf(text, sizeof(text), format, (unsigned long long)id);
	return command(text);
}

static long take(void *records, size_t size)
{
	return result(read(device, records, size));
}

/* What poll(2) has to say within so many milliseconds; 0 if nothing. */
static long polled(int timeout)
{
	struct pollfd pfd = { .fd = device, .events = POLLIN };

	return poll(&pfd, 1, timeout) > 0 ? pfd.revents : 0;
}

/* Takes one record, which must come soon. */
static record_t take_one(void)
{
	record_t record = { 0 };

	polled(PATIENCE_MS);
	if (take(&record, sizeof(record)) != RECORD)
		die("no request came");
	if (record.id > last_id)
		last_id = record.id;
	return record;
}

/* Opens the device and binds a cache: 0 or the error of the command that failed. */
static long bind_cache(const char *dir, const char *name)
{
	long error;

	open_device();
	error = command_with("dir", dir);
	if (!error)
		error = command_with("tag", name);
	return error ? error : command("bind");
}

/* --- readers ------------------------------------------------------------- */

/* Blocks that no reader has touched; far apart, so that requests do not merge. */
static off_t fresh_block(void)
{
	static off_t next;

	next += 16 * BLOCK;
	return next;
}

/* Asks for a block that is missing, and does not wait for it. */
static off_t want(void)
{
	off_t off = fresh_block();

	errno = posix_fadvise(file, off, BLOCK, POSIX_FADV_WILLNEED);
	if (errno)
		die("cannot ask for a block");
	return off;
}

/* Reads a block in another process, which waits. */
static pid_t start_reader(off_t off)
{
	static char block[BLOCK];
	pid_t pid = fork();

	if (pid < 0)
		die("cannot fork");
	if (pid == 0) {
		/* Closing the device must not depend on this process. */
		close(device);
		_exit(pread(file, block, BLOCK, off) < 0 ? errno : 0);
	}
	return pid;
}

/* The error that the reader got, or 0. */
static long reader_error(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

/*
 * Answers everything until the reader has ended: what failed in readahead is
 * tried once more for the reader. Returns what the reader got.
 */
static long answer_until_end(pid_t reader, const char *format)
{
	int status;

	while (waitpid(reader, &status, WNOHANG) == 0)
		if (polled(100))
			answer(format, take_one().id);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* What this test puts into a block: not what the image had there. */
static void fill(char *block, off_t off)
{
	memset(block, 'a' + off / BLOCK % 26, BLOCK);
}

static void write_block(off_t off)
{
	static char block[BLOCK];

	fill(block, off);
	if (pwrite(cache_file, block, BLOCK, off) != BLOCK)
		die("cannot write to the cache file");
}

/* Does what a daemon does. */
static void serve(const record_t *record)
{
	write_block(record->off);
	if (answer("done %llu", record->id))
		die("cannot answer");
}

static int block_is_right(off_t off)
{
	static char got[BLOCK], wanted[BLOCK];

	fill(wanted, off);
	return pread(file, got, BLOCK, off) == BLOCK && !memcmp(got, wanted, BLOCK);
}

/* --- open ---------------------------------------------------------------- */

/* Opens in a process that gave something up: 0 or the error. */
static long try_open_after(int (*give_up)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(give_up() ? 255 : -try_open());
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		die("cannot open as somebody else");
	return -WEXITSTATUS(status);
}

static int become_nobody(void)
{
	return setuid(65534);
}

static int drop_sys_admin(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, sets))
		return -1;
	sets[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
	return syscall(SYS_capset, &header, sets);
}

static void check_open(void)
{
	check("the user nobody may not open the device", try_open_after(become_nobody), -EACCES);
	check("root without CAP_SYS_ADMIN may not open it", try_open_after(drop_sys_admin), -EPERM);
	open_device();
	check("it can be opened once at a time", try_open(), -EBUSY);
	close(device);
	check("and again after it is closed", try_open(), 0);
}

/* --- commands before and after bind ---------------------------------------- */

struct command {
	const char *text;
	long wanted;
};

static const struct command before_bind[] = {
	{ "nonsense", -EOPNOTSUPP },
	{ "DIR /", -EOPNOTSUPP },
	{ "binding", -EOPNOTSUPP },
	{ "", -EINVAL },
	{ "\n", -EINVAL },
	{ "bind", -EINVAL },
	{ "dir", -EINVAL },
	{ "dir relative/path", -EINVAL },
	{ "tag", -EINVAL },
	{ "tag ", -EINVAL },
	{ "done 1", -EINVAL },
	{ "fail 1 5", -EINVAL },
	{ "restore", -EINVAL },
	{ "unbind", -EINVAL },
	{ "cull name", -EINVAL },
	{ "inuse name", -EINVAL },
	{ "debug 1", -EOPNOTSUPP },
	{ "linger", -EINVAL },
	{ "linger 604801", -EINVAL },
	{ "linger 604800", 0 },
	{ "timeout 1 2", -EINVAL },
	{ "timeout 0", 0 },
	{ "granule 2048", -EINVAL },
	{ "granule 12288", -EINVAL },
	{ "granule 33554432", -EINVAL },
	{ "granule 0x1000000", 0 },
	{ "io fast", -EINVAL },
	{ "io auto", 0 },
	{ "brun 7", -EINVAL },
	{ "brun 100%", -EINVAL },
	{ "secctx", -EINVAL },
	{ "tag abi", 0 },
	{ "tag abi", -EEXIST },
	{ "dir /nonexistent\n", 0 },
	{ "dir /nonexistent", -EEXIST },
	{ "bind now", -EINVAL },
	{ "bcull 7%", 0 },
	{ "bind", -EINVAL },
	{ "bcull 5%", 0 },
	{ "bind", -ENOENT },
	{ "secctx nonsense", 0 },
}, after_bind[] = {
	{ "bind", -EBUSY },
	{ "dir /", -EBUSY },
	{ "tag other", -EBUSY },
	{ "secctx other", -EBUSY },
	{ "fstop 1%", -EBUSY },
	{ "restore now", -EINVAL },
	{ "restore", 0 },
	{ "cull a/b", -EINVAL },
	{ "cull ..", -EINVAL },
	/* The working directory is not in the cache. */
	{ "cull name", -EINVAL },
	{ "inuse name", -EINVAL },
	{ "linger 0", 0 },
};

static void check_commands(const struct command *commands, size_t n, const char *when)
{
	char what[128], shown[64];

	for (; n--; commands++) {
		snprintf(shown, sizeof(shown), "%s", commands->text);
		shown[strcspn(shown, "\n")] = 0;
		snprintf(what, sizeof(what), "'%s%s' is %s %s", shown,
			 strchr(commands->text, '\n') ? " and a newline" : "",
			 commands->wanted ? "refused" : "taken", when);
		check(what, command(commands->text), commands->wanted);
	}
}

static void check_setup(void)
{
	static char text[CACHEFILES_DEMAND_COMMAND_MAX + 1];
	record_t records[2];
	long error;

	open_device();
	check("before bind a read finds nothing", take(records, sizeof(records)), 0);
	check("and poll says so", polled(0), 0);
	check("a buffer that is too small is refused", take(records, RECORD - 1), -EMSGSIZE);
	check("a NUL byte in a command is refused", command_bytes("dir /\0x", 7), -EINVAL);
	memset(text, 'x', sizeof(text));
	memcpy(text, "tag ", 4);
	check("a command of 4096 bytes is refused", command_bytes(text, 4096), -EINVAL);
	check_commands(before_bind, ARRAY_SIZE(before_bind), "before bind");
	check("a second security context is refused (T40)", command("secctx other"), -EEXIST);
	close(device);

	/* Which error it is depends on the security module. */
	open_device();
	snprintf(text, sizeof(text), "dir %s", root);
	command(text);
	command("secctx nonsense");
	error = command("bind");
	check("one that nobody knows is refused by bind (T40)",
	      error == -EINVAL || error == -ENOENT || error == -EOPNOTSUPP, 1);
	close(device);

	open_device();
	memset(text, 'x', sizeof(text));
	memcpy(text, "tag ", 4);
	check("a command of 4095 bytes is taken (T26)", command_bytes(text, 4095), 4095);
	close(device);
}

static const struct {
	const char *name;
	long wanted;
} bad_places[] = {
	{ "missing", -ENOENT },
	{ "file", -ENOTDIR },
	{ "read-only", -EROFS },
	/* Has no extended attributes. */
	{ "ramfs", -EOPNOTSUPP },
	/* A file system whose files have no holes. */
	{ "without-holes", -EOPNOTSUPP },
};

static long try_bind(const char *places, const char *name, const char *with_tag)
{
	char dir[1024];
	long error;

	snprintf(dir, sizeof(dir), "%s/%s", places, name);
	error = bind_cache(dir, with_tag);
	close(device);
	return error;
}

static void check_bind(const char *places)
{
	char what[128];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad_places); i++) {
		snprintf(what, sizeof(what), "bind refuses the place '%s'", bad_places[i].name);
		check(what, try_bind(places, bad_places[i].name, "bad"), bad_places[i].wanted);
	}
	check("bind takes a good place", try_bind(places, "good", "good"), 0);
	check("bind refuses a tag that another cache has", try_bind(places, "good", tag), -EBUSY);
	check("bind takes over a cache that lost its daemon", bind_cache(root, tag), 0);
	check_commands(after_bind, ARRAY_SIZE(after_bind), "after bind");
}

/* --- records ------------------------------------------------------------- */

/* Two pages of which the second cannot be touched: where the first one ends. */
static char *edge(void)
{
	long page = sysconf(_SC_PAGESIZE);
	char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED || mprotect(pages + page, page, PROT_NONE))
		die("cannot map");
	return pages + page;
}

static void check_one_record(void)
{
	unsigned char got[2 * RECORD], wanted[RECORD] = { 0 };
	char *end = edge();
	uint64_t off, len = BLOCK, id;

	check("with nothing pending a read finds nothing", take(got, sizeof(got)), 0);
	check("and poll says so", polled(0), 0);
	off = want();
	check("a miss makes the device readable", polled(PATIENCE_MS), POLLIN);
	check("a buffer one byte too small is refused", take(got, RECORD - 1), -EMSGSIZE);
	check("a bad buffer is refused (T7)", take(end, RECORD), -EFAULT);
	check("a buffer that is half bad is refused", take(end - RECORD / 2, RECORD), -EFAULT);
	check("after all that the record still waits (T7)", polled(0), POLLIN);
	memset(got, 0xff, sizeof(got));
	check("a read of more takes one record", take(got, sizeof(got)), RECORD);

	/* The header's offsets, written out. */
	memcpy(&id, got, 8);
	memcpy(wanted, &id, 8);
	memcpy(wanted + 8, &off, 8);
	memcpy(wanted + 16, &len, 8);
	memcpy(wanted + 24, cache_file_name, strlen(cache_file_name));
	check("its 280 bytes are as the header says", memcmp(got, wanted, RECORD), 0);
	check("its id is not 0", id != 0, 1);
	check("the bytes behind it are untouched", got[RECORD], 0xff);
	check("it is delivered once", take(got, sizeof(got)), 0);
	check("and poll says so", polled(0), 0);
	last_id = id;
	serve(&(record_t){ .id = id, .off = off });
	check("the reader gets what was written", block_is_right(off), 1);
	check("an answered request cannot be answered again (T2)", answer("done %llu", id), -EINVAL);
	check("nor made to fail", answer("fail %llu 5", id), -EINVAL);
}

static void check_many_records(void)
{
	record_t records[8];
	off_t offs[3];
	char *end = edge();
	int i, right = 1, growing = 1;

	for (i = 0; i < 3; i++)
		offs[i] = want();
	memset(records, 0, sizeof(records));
	check("a read takes as many records as there are", take(records, sizeof(records)), 3 * RECORD);
	for (i = 0; i < 3; i++) {
		growing &= records[i].id > last_id;
		last_id = records[i].id;
		/* In the order of the misses. */
		right &= (off_t)records[i].off == offs[i] && records[i].len == BLOCK &&
			 !strcmp(records[i].path, cache_file_name);
		serve(&records[i]);
	}
	check("they are those of the misses, in order (T20)", right, 1);
	check("ids grow", growing, 1);

	want();
	want();
	check("a read takes only whole records", take(records, 2 * RECORD - 1), RECORD);
	serve(&records[0]);
	want();
	check("a read up to a bad page takes what it could store", take(end - RECORD, 2 * RECORD), RECORD);
	memcpy(&records[0], end - RECORD, RECORD);
	serve(&records[0]);
	check("the other record still waits", polled(0), POLLIN);
	records[0] = take_one();
	serve(&records[0]);
	check("and was the last", take(records, sizeof(records)), 0);
}

/* --- answers ------------------------------------------------------------- */

/* Nearly answers to a request that waits; each %llu is its id. */
static const struct command bad_answers[] = {
	{ "done", -EINVAL },
	{ "done x", -EINVAL },
	{ "done -%llu", -EINVAL },
	{ "done +%llu", -EINVAL },
	{ "done %llux", -EINVAL },
	{ "done %llu 0", -EINVAL },
	{ "done 0x", -EINVAL },
	{ "done 0", -EINVAL },
	{ "done 18446744073709551615", -EINVAL },
	{ "done 18446744073709551616", -EINVAL },
	{ "done 99999999999999999999999999999999", -EINVAL },
	{ "Done %llu", -EOPNOTSUPP },
	{ "done%llu", -EOPNOTSUPP },
	{ "fail", -EINVAL },
	{ "fail %llu", -EINVAL },
	{ "fail %llu 0", -EINVAL },
	{ "fail %llu -5", -EINVAL },
	{ "fail %llu EIO", -EINVAL },
	{ "fail %llu 512", -EINVAL },
	/* -EIOCBQUEUED within the kernel, and the end of its error numbers. */
	{ "fail %llu 529", -EINVAL },
	{ "fail %llu 4096", -EINVAL },
	{ "fail %llu 4294967301", -EINVAL },
	{ "fail %llu 5 5", -EINVAL },
};

static void check_answers(void)
{
	record_t records[8];
	pid_t reader;
	off_t off;
	size_t i;
	long refused = 0;
	char what[128];

	off = fresh_block();
	reader = start_reader(off);
	records[0] = take_one();
	for (i = 0; i < ARRAY_SIZE(bad_answers); i++) {
		const char *text = bad_answers[i].text, *id = strstr(text, "%llu");

		if (id)
			snprintf(what, sizeof(what), "'%.*sID%s' is no answer", (int)(id - text),
				 text, id + strlen("%llu"));
		else
			snprintf(what, sizeof(what), "'%s' is no answer", text);
		check(what, answer(text, records[0].id), bad_answers[i].wanted);
	}

	/* Ids that are not delivered yet: whatever they are, they are not far. */
	want();
	polled(PATIENCE_MS);
	for (i = 1; i <= 64; i++)
		refused += answer("done %llu", last_id + i) == -EINVAL;
	check("a request that was not delivered cannot be answered (T4, T8)", refused, 64);
	check("and still waits", polled(0), POLLIN);
	records[1] = take_one();
	serve(&records[1]);

	check("after all these the reader still waits (T19)", waitpid(reader, NULL, WNOHANG), 0);
	write_block(off);
	check("a hexadecimal id is taken", answer("done 0x%llx", records[0].id), 0);
	check("then the reader goes on", reader_error(reader), 0);
	check("with the right bytes", block_is_right(off), 1);

	/* A process ends with 8 bits of it. */
	check("the largest errno reaches the reader",
	      answer_until_end(start_reader(fresh_block()), "fail %llu 511\n"), 511 & 0xff);
}

/* --- waiting ------------------------------------------------------------- */

/* What epoll tells within so many milliseconds. */
static long epolled(int epoll, int timeout)
{
	struct epoll_event event = { 0 };

	return epoll_wait(epoll, &event, 1, timeout) > 0 ? event.events : 0;
}

static int watch(uint32_t events)
{
	struct epoll_event event = { .events = events };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, device, &event))
		die("cannot watch the device");
	return epoll;
}

static void check_epoll(void)
{
	int level = watch(EPOLLIN), edge_triggered = watch(EPOLLIN | EPOLLET);
	record_t records[2];
	pid_t reader;

	check("nothing pending, no level", epolled(level, 0), 0);
	check("nothing pending, no edge", epolled(edge_triggered, 0), 0);
	want();
	check("a record raises the level", epolled(level, PATIENCE_MS), EPOLLIN);
	check("a record makes an edge", epolled(edge_triggered, PATIENCE_MS), EPOLLIN);
	check("the level stays", epolled(level, 0), EPOLLIN);
	check("the edge is told once", epolled(edge_triggered, 0), 0);
	want();
	check("every new record makes an edge, though none was read",
	      epolled(edge_triggered, PATIENCE_MS), EPOLLIN);
	records[0] = take_one();
	check("the level stays while a record is left", epolled(level, 0), EPOLLIN);
	records[1] = take_one();
	check("it falls with the last record, though none was answered", epolled(level, 0), 0);
	serve(&records[0]);
	serve(&records[1]);

	reader = start_reader(fresh_block());
	check("a waiter is woken", epolled(edge_triggered, PATIENCE_MS), EPOLLIN);
	records[0] = take_one();
	serve(&records[0]);
	check("and its reader served", reader_error(reader), 0);
	close(level);
	close(edge_triggered);
}

/* --- the next daemon ------------------------------------------------------- */

static void check_next_daemon(void)
{
	record_t record, left;

	want();
	left = take_one();
	want();
	polled(PATIENCE_MS);
	if (command("linger 0"))
		die("cannot say how long to linger");
	close(device);

	open_device();
	check("a new daemon starts anew", command("bind"), -EINVAL);
	close(device);
	if (bind_cache(root, tag))
		die("cannot bind the cache again");
	check("what was pending does not pass to it", take(&record, sizeof(record)), 0);
	check("nor can it answer that", answer("done %llu", left.id), -EINVAL);
	want();
	record = take_one();
	check("ids are not used again (T14)", record.id > left.id, 1);
	check("nor do old ids name new requests (T14)", answer("done %llu", left.id), -EINVAL);
	serve(&record);
	check("the new request is served", block_is_right(record.off), 1);
	close(device);
}

int main(int argc, char **argv)
{
	if (argc != 6) {
		fprintf(stderr, "usage: %s CACHE-ROOT TAG FILE CACHE-FILE PLACES\n", argv[0]);
		return 2;
	}
	root = argv[1];
	tag = argv[2];
	file = open(argv[3], O_RDONLY | O_CLOEXEC);
	cache_file = open(argv[4], O_WRONLY | O_CLOEXEC);
	cache_file_name = basename(argv[4]);
	if (file < 0 || cache_file < 0)
		die("cannot open the files");
	/* One block is one request. */
	posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM);

	printf("KTAP version 1\n1..%d\n", PLAN);
	check_open();
	check_setup();
	check_bind(argv[5]);
	check_one_record();
	check_many_records();
	check_answers();
	check_epoll();
	check_next_daemon();
	return failed ? 1 : 0;
}
