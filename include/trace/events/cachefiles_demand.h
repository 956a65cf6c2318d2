/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints of cachefiles_demand.ko: the life of a request, and the decision
 * between hit and miss that comes before it. Positions and lengths are bytes of
 * the backing file, by whose name the daemon knows a blob.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM cachefiles_demand

#if !defined(_TRACE_CACHEFILES_DEMAND_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_CACHEFILES_DEMAND_H

#include <linux/tracepoint.h>

/* A read of missing bytes has made a request for the daemon. */
TRACE_EVENT(request_queued,
	TP_PROTO(const char *cache, const char *file, u64 id, u64 start, u64 len),

	TP_ARGS(cache, file, id, start, len),

	TP_STRUCT__entry(
		__string(cache, cache)
		__string(file, file)
		__field(u64, id)
		__field(u64, start)
		__field(u64, len)
	),

	TP_fast_assign(
		__assign_str(cache);
		__assign_str(file);
		__entry->id = id;
		__entry->start = start;
		__entry->len = len;
	),

	TP_printk("id=%llu start=%llu len=%llu file=%s cache=%s",
		  __entry->id, __entry->start, __entry->len,
		  __get_str(file), __get_str(cache))
);

/* The daemon has read the request from the device. */
TRACE_EVENT(request_delivered,
	TP_PROTO(u64 id),

	TP_ARGS(id),

	TP_STRUCT__entry(
		__field(u64, id)
	),

	TP_fast_assign(
		__entry->id = id;
	),

	TP_printk("id=%llu", __entry->id)
);

/* The request is over: errno is zero or negative, age is since it was queued. */
TRACE_EVENT(request_completed,
	TP_PROTO(u64 id, int errno, u64 age_us),

	TP_ARGS(id, errno, age_us),

	TP_STRUCT__entry(
		__field(u64, id)
		__field(int, errno)
		__field(u64, age_us)
	),

	TP_fast_assign(
		__entry->id = id;
		__entry->errno = errno;
		__entry->age_us = age_us;
	),

	TP_printk("id=%llu errno=%d age_us=%llu",
		  __entry->id, __entry->errno, __entry->age_us)
);

/* A read was found to be a hit, or to have missing bytes. */
TRACE_EVENT(presence,
	TP_PROTO(const char *file, u64 start, u64 len, bool present),

	TP_ARGS(file, start, len, present),

	TP_STRUCT__entry(
		__string(file, file)
		__field(u64, start)
		__field(u64, len)
		__field(bool, present)
	),

	TP_fast_assign(
		__assign_str(file);
		__entry->start = start;
		__entry->len = len;
		__entry->present = present;
	),

	TP_printk("%s start=%llu len=%llu file=%s",
		  __entry->present ? "hit" : "miss",
		  __entry->start, __entry->len, __get_str(file))
);

#endif /* _TRACE_CACHEFILES_DEMAND_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
