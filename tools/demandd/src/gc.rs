// SPDX-License-Identifier: GPL-2.0
//! What culling would remove, in its order.

use std::fmt;
use std::time::SystemTime;

use anyhow::Result;
use serde_json::{json, Value};

use crate::cache::Volume;
use crate::cull::{candidates, printable, taken};
use crate::kernel::Kernel;

/// A blob that culling comes to.
#[derive(Debug)]
pub struct Row {
    /// Its name, printable.
    pub name: String,
    /// What it takes of the disk.
    pub bytes: u64,
    /// For how many seconds it was not used.
    pub idle: u64,
    /// A mount uses it: it stays.
    pub in_use: bool,
    /// It is to go, because the blobs take more of the disk than they may.
    pub goes: bool,
}

/// The blobs of which something is present, the one that was not used for longest first.
#[derive(Debug)]
pub struct List {
    /// One row per blob.
    pub rows: Vec<Row>,
    /// What all of them may take of the disk, in bytes.
    limit: Option<u64>,
    /// Why it is not known what is in use.
    problem: Option<String>,
}

/// Makes the list. The kernel knows what is in use.
pub fn list(volume: &Volume, kernel: &Kernel, tag: &str, limit: Option<u64>) -> Result<List> {
    let tables = kernel.json();
    let objects = tables["objects"].as_array();
    let used: Vec<&str> = objects
        .into_iter()
        .flatten()
        .filter_map(|row| {
            row["tag/name"]
                .as_str()?
                .strip_prefix(tag)?
                .strip_prefix('/')
        })
        .collect();
    let now = SystemTime::now();
    let candidates = candidates(volume, |_| None)?;
    let mut left = taken(&candidates);
    let rows = candidates.into_iter().map(|candidate| {
        let file_name = candidate.file_name.to_string_lossy();
        let in_use = used.contains(&file_name.escape_debug().to_string().as_str());
        let goes = !in_use && limit.is_some_and(|limit| left > limit);
        if goes {
            left = left.saturating_sub(candidate.bytes);
        }
        Row {
            name: printable(&candidate.file_name),
            bytes: candidate.bytes,
            // A time in the future is one that has just been.
            idle: now
                .duration_since(candidate.used)
                .map_or(0, |idle| idle.as_secs()),
            in_use,
            goes,
        }
    });
    Ok(List {
        rows: rows.collect(),
        limit,
        problem: tables["problems"][0].as_str().map(str::to_owned),
    })
}

impl List {
    /// What would be free if all went that can.
    pub fn reclaimable(&self) -> u64 {
        let rows = self.rows.iter().filter(|row| !row.in_use);
        rows.map(|row| row.bytes).fold(0, u64::saturating_add)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "name": row.name,
                "bytes": row.bytes,
                "idle_seconds": row.idle,
                "in_use": row.in_use,
                "goes": row.goes,
            })
        };
        json!({
            "blobs": self.rows.iter().map(row).collect::<Vec<_>>(),
            "reclaimable": self.reclaimable(),
            "limit": self.limit,
            "problem": self.problem,
        })
    }
}

/// For people.
impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>15} {:>12} {:6}  blob", "bytes", "idle s", "")?;
        for row in &self.rows {
            let state = match (row.in_use, row.goes) {
                (true, _) => "in use",
                (_, true) => "goes",
                _ => "",
            };
            writeln!(
                f,
                "{:>15} {:>12} {state:6}  {}",
                row.bytes, row.idle, row.name
            )?;
        }
        writeln!(
            f,
            "{:>15} {:>12} {:6}  would be free",
            self.reclaimable(),
            "",
            ""
        )?;
        match &self.problem {
            Some(problem) => writeln!(f, "\nwhat is in use is not known: {problem}"),
            None => Ok(()),
        }
    }
}
