/* SPDX-License-Identifier: GPL-2.0 */
/* How Rust calls the tracepoints; bindgen reads this file. */
#ifndef EROFS_DEMAND_TRACE_EVENTS_H
#define EROFS_DEMAND_TRACE_EVENTS_H

#include <linux/types.h>

void demand_trace_request_queued(const char *cache, const char *file, u64 id,
				 u64 start, u64 len);
void demand_trace_request_delivered(u64 id);
void demand_trace_request_completed(u64 id, int errno, u64 age_us);
void demand_trace_presence(const char *file, u64 start, u64 len, bool present);

#endif
