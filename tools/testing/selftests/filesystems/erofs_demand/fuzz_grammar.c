// SPDX-License-Identifier: GPL-2.0
/*
 * The grammar of commands to /dev/cachefiles_demand: every word, with arguments
 * that are valid, at the bounds, beyond them, or no arguments at all.
 */
#include <stdio.h>
#include <string.h>

#include "fuzz_daemon.h"

static uint64_t some_id(struct thread *t)
{
	switch (below(t, 8)) {
	case 0:
		return shared->last_id + 1 + below(t, 8);
	case 1:
		return shared->last_id - below(t, 64);
	case 2:
		return shared->old_ids[below(t, OLD_IDS)];
	case 3:
		return pick(t, ((uint64_t[]){ 0, 1, INT64_MAX, (uint64_t)1 << 63, UINT64_MAX, UINT32_MAX }));
	case 4:
		return rnd(&t->rnd);
	default:
		return held_id(t);
	}
}

/* A number within the bounds, at them, beyond them, or none. */
static int put_number(struct thread *t, char *out, uint64_t low, uint64_t high)
{
	static const char *const absurd[] = {
		"-1", "18446744073709551615", "18446744073709551616", "9223372036854775808",
		"4294967296", "2147483648", "99999999999999999999999999999999", "0x", "0xg",
		"0x1ffffffffffffffff", "+1", "1.5", "1e3", "0b1", "1_000", "x", "", "-", "\xc2\xb2",
	};
	uint64_t n = low + (high - low == UINT64_MAX ? rnd(&t->rnd) : below(t, high - low + 1));

	switch (below(t, 16)) {
	case 0:
		return sprintf(out, "%s", pick(t, absurd));
	case 1:
		n = low;
		break;
	case 2:
		n = high;
		break;
	case 3:
		n = low - 1;
		break;
	case 4:
		n = high + 1;
		break;
	case 5:
		return sprintf(out, "0x%llx", (unsigned long long)n);
	case 6:
		return sprintf(out, "000%llu", (unsigned long long)n);
	}
	return sprintf(out, "%llu", (unsigned long long)n);
}

static int put_text(struct thread *t, char *out)
{
	static const char *const words[] = {
		"", "now", "ondemand", "%s%n%x", "../x", ".", "..", "a b", "\x01\xff\xfe", "a/b", "\t",
		"a,b", "0", "CacheFiles",
	};

	if (chance(t, 8)) {
		int n = 1 + below(t, 5000);

		memset(out, 'a', n);
		return n;
	}
	return sprintf(out, "%s", pick(t, words));
}

static int put_dir(struct thread *t, char *out)
{
	static const char *const dirs[] = {
		"/proc", "/sys", "/dev/null", "/nonexistent", "relative", "/dev/cachefiles_demand",
		"/proc/self/fd", "//", "",
	};

	switch (below(t, 8)) {
	case 0:
		return sprintf(out, "%s", pick(t, dirs));
	case 1:
		/* A directory within the cache, and a mount of what it serves. */
		if (chance(t, 2))
			return sprintf(out, "%s/cache", world.root);
		return sprintf(out, "%s", world.mounts[below(t, world.nmounts)].dir);
	case 2:
		return sprintf(out, "%s//.", world.root);
	case 3:
		return sprintf(out, "%s", world.other_root);
	case 4:
		return put_text(t, out);
	default:
		return sprintf(out, "%s", world.root);
	}
}

static int put_tag(struct thread *t, char *out)
{
	return chance(t, 3) ? put_text(t, out) : sprintf(out, "%s", world.tag);
}

static int put_nothing(struct thread *t, char *out)
{
	return chance(t, 16) ? put_text(t, out) : 0;
}

static int put_id(struct thread *t, char *out)
{
	uint64_t id = some_id(t);

	return chance(t, 4) ? put_number(t, out, id, id) : sprintf(out, "%llu", (unsigned long long)id);
}

static int put_id_errno(struct thread *t, char *out)
{
	int n = put_id(t, out);

	out[n++] = ' ';
	return n + put_number(t, out + n, 1, 511);
}

static int put_seconds(struct thread *t, char *out)
{
	return put_number(t, out, 0, chance(t, 2) ? 2 : 604800);
}

static int put_granule(struct thread *t, char *out)
{
	return chance(t, 2) ? put_number(t, out, 4096, 16777216) :
			      sprintf(out, "%llu", 1ULL << below(t, 30));
}

static int put_io(struct thread *t, char *out)
{
	return sprintf(out, "%s", pick(t, ((const char *[]){ "auto", "direct", "buffered", "AUTO", "" })));
}

static int put_percent(struct thread *t, char *out)
{
	int n = put_number(t, out, 0, chance(t, 2) ? 8 : 99);

	return n + sprintf(out + n, "%s", chance(t, 8) ? "" : "%");
}

static int put_cache_file(struct thread *t, char *out)
{
	if (chance(t, 4))
		return put_text(t, out);
	return sprintf(out, "D%s", world.blobs[below(t, world.nblobs)].name);
}

static int put_bits(struct thread *t, char *out)
{
	return put_number(t, out, 0, 15);
}

static const struct word {
	const char *word;
	int (*argument)(struct thread *t, char *out);
	/* Requests may be delivered again. */
	bool upheaval;
} words[] = {
	{ "dir", put_dir, false },
	{ "tag", put_tag, false },
	{ "bind", put_nothing, true },
	{ "unbind", put_nothing, true },
	{ "brun", put_percent, false },
	{ "bcull", put_percent, false },
	{ "bstop", put_percent, false },
	{ "frun", put_percent, false },
	{ "fcull", put_percent, false },
	{ "fstop", put_percent, false },
	{ "secctx", put_text, false },
	/* first_word_of_service */
	{ "restore", put_nothing, true },
	{ "done", put_id, false },
	{ "done", put_id, false },
	{ "done", put_id, false },
	{ "fail", put_id_errno, false },
	{ "fail", put_id_errno, false },
	{ "fail", put_id_errno, false },
	{ "linger", put_seconds, false },
	{ "timeout", put_seconds, false },
	{ "granule", put_granule, false },
	{ "io", put_io, false },
	{ "cull", put_cache_file, false },
	{ "inuse", put_cache_file, false },
	{ "debug", put_bits, false },
	{ "nonsense", put_text, false },
};

const unsigned int first_word_of_service = 11, number_of_words = ARRAY_SIZE(words);

bool word_is_upheaval(unsigned int word)
{
	return words[word].upheaval;
}

const char *command_word(unsigned int n)
{
	return n < ARRAY_SIZE(words) ? words[n].word : NULL;
}

int make_command(struct thread *t, unsigned int n_word)
{
	const struct word *word = &words[n_word];
	char *out = t->buffer;
	int n = sprintf(out, "%s", word->word);

	if (word->argument == put_nothing && !chance(t, 16))
		return n;
	n += sprintf(out + n, "%s", chance(t, 16) ? pick(t, ((const char *[]){ "", "  ", "\t", "\n" })) : " ");
	n += word->argument(t, out + n);
	if (chance(t, 4))
		n += sprintf(out + n, "%s", pick(t, ((const char *[]){ "\n", "\n", "\n\n", " ", "\r\n", " 0" })));
	return n;
}

int spoil(struct thread *t, int n)
{
	static const int sizes[] = { 4094, 4095, 4096, 4097, COMMAND_ROOM };
	int size;

	switch (below(t, 6)) {
	case 0:
		t->buffer[below(t, n)] ^= 1 << below(t, 8);
		return n;
	case 1:
		t->buffer[below(t, n)] = 0;
		return n;
	case 2:
		return below(t, n);
	case 3:
		memmove(t->buffer + 1, t->buffer, n);
		t->buffer[0] = ' ';
		return n + 1;
	case 4:
		size = pick(t, sizes);
		if (size > n)
			memset(t->buffer + n, chance(t, 2) ? ' ' : 'x', size - n);
		return size;
	default:
		for (size = 0; size < 64; size++)
			t->buffer[size] = rnd(&t->rnd);
		return 64;
	}
}

