// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints themselves, and a function for each that Rust can call: the
 * C side holds the branch that is patched when an event is turned on.
 *
 * Rust's own macro for that branch does not work out of tree. It names the
 * bindings of the kernel, and makes kbuild write into the kernel's tree.
 */
#define CREATE_TRACE_POINTS
#include <trace/events/cachefiles_demand.h>
#include "events.h"

void demand_trace_request_queued(const char *cache, const char *file, u64 id,
				 u64 start, u64 len)
{
	trace_request_queued(cache, file, id, start, len);
}

void demand_trace_request_delivered(u64 id)
{
	trace_request_delivered(id);
}

void demand_trace_request_completed(u64 id, int errno, u64 age_us)
{
	trace_request_completed(id, errno, age_us);
}

void demand_trace_presence(const char *file, u64 start, u64 len, bool present)
{
	trace_presence(file, start, len, present);
}
