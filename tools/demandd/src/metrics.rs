// SPDX-License-Identifier: GPL-2.0
//! Numbers for Prometheus, in its text format: what this daemon counts, and the kernel's tables.

use std::fmt::Write;

use serde_json::Value;

use crate::counts::{Counts, BOUNDS_MS};
use crate::kernel::Kernel;

/// Columns of the kernel's table of caches: name of the metric, type, column, what one is in the metric's unit.
const CACHES: [(&str, &str, &str, f64); 10] = [
    ("cache_objects", "gauge", "objects", 1.0),
    ("cache_queued_requests", "gauge", "queued", 1.0),
    ("cache_delivered_requests", "gauge", "delivered", 1.0),
    ("cache_oldest_request_seconds", "gauge", "oldest_ms", 0.001),
    ("cache_hung_requests_total", "counter", "hung", 1.0),
    ("cache_done_requests_total", "counter", "done", 1.0),
    ("cache_failed_requests_total", "counter", "failed", 1.0),
    ("cache_done_bytes_total", "counter", "done_bytes", 1.0),
    ("cache_culling", "gauge", "culling", 1.0),
    ("cache_stopped", "gauge", "stopped", 1.0),
];

/// The same of the table of blobs in use.
const OBJECTS: [(&str, &str, &str, f64); 4] = [
    ("blob_size_bytes", "gauge", "size", 1.0),
    ("blob_present_bytes", "gauge", "present_blocks", 4096.0),
    ("blob_hits_total", "counter", "hits", 1.0),
    ("blob_misses_total", "counter", "misses", 1.0),
];

/// All metrics; `taken` is what the blobs take of the disk, in bytes, if that is known.
pub fn text(counts: &Counts, taken: Option<u64>, kernel: &Kernel) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = own(&mut text, counts);
    if let Some(taken) = taken {
        let _ = single(&mut text, "cache_bytes", "gauge", taken);
    }
    let tables = kernel.json();
    let _ = table(&mut text, &tables["caches"], "tag", &CACHES);
    let _ = table(&mut text, &tables["objects"], "tag/name", &OBJECTS);
    text
}

fn own(text: &mut String, counts: &Counts) -> std::fmt::Result {
    let summary = counts.summary();
    writeln!(text, "# TYPE demandd_requests_total counter")?;
    writeln!(
        text,
        "demandd_requests_total{{result=\"done\"}} {}",
        summary.served
    )?;
    writeln!(
        text,
        "demandd_requests_total{{result=\"failed\"}} {}",
        summary.failed
    )?;
    let keeping = counts.housekeeping();
    for (name, kind, value) in [
        ("bytes_total", "counter", summary.bytes),
        ("requests_in_flight", "gauge", counts.in_flight()),
        ("prefetched_bytes_total", "counter", keeping.prefetched),
        ("culled_blobs_total", "counter", keeping.culled),
        ("culled_bytes_total", "counter", keeping.culled_bytes),
    ] {
        single(text, name, kind, value)?;
    }
    let times = counts.times();
    writeln!(text, "# TYPE demandd_request_seconds histogram")?;
    for (bound, count) in BOUNDS_MS.iter().zip(&times.up_to) {
        let seconds = *bound as f64 / 1000.0;
        writeln!(
            text,
            "demandd_request_seconds_bucket{{le=\"{seconds}\"}} {count}"
        )?;
    }
    writeln!(
        text,
        "demandd_request_seconds_bucket{{le=\"+Inf\"}} {}",
        times.count
    )?;
    writeln!(
        text,
        "demandd_request_seconds_sum {}",
        times.sum.as_secs_f64()
    )?;
    writeln!(text, "demandd_request_seconds_count {}", times.count)
}

fn single(text: &mut String, name: &str, kind: &str, value: u64) -> std::fmt::Result {
    writeln!(text, "# TYPE demandd_{name} {kind}\ndemandd_{name} {value}")
}

fn table(
    text: &mut String,
    rows: &Value,
    name: &str,
    metrics: &[(&str, &str, &str, f64)],
) -> std::fmt::Result {
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
    for (metric, kind, column, unit) in metrics {
        let values = rows
            .iter()
            .filter_map(|row| Some((row[name].as_str()?, row[*column].as_f64()?)));
        for (at, (label, value)) in values.enumerate() {
            if at == 0 {
                writeln!(text, "# TYPE cachefiles_demand_{metric} {kind}")?;
            }
            let label = label.replace('\\', "\\\\").replace('"', "\\\"");
            let name = name.rsplit('/').next().unwrap_or(name);
            writeln!(
                text,
                "cachefiles_demand_{metric}{{{name}=\"{label}\"}} {}",
                value * unit
            )?;
        }
    }
    Ok(())
}
