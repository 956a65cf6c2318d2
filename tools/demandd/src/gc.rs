// SPDX-License-Identifier: GPL-2.0
//! What culling would remove, in its order.

use std::fmt;
use std::time::SystemTime;

use anyhow::Result;
use serde_json::{json, Value};

use crate::cache::Volume;
use crate::cull::{candidates, printable};
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
}

/// The blobs of which something is present, the one that was not used for longest first.
#[derive(Debug)]
pub struct List {
    /// One row per blob.
    pub rows: Vec<Row>,
    /// Why it is not known what is in use.
    problem: Option<String>,
}

/// Makes the list. The kernel knows what is in use.
pub fn list(volume: &Volume, kernel: &Kernel, tag: &str) -> Result<List> {
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
    let rows = candidates(volume, |_| None)?.into_iter().map(|candidate| {
        let file_name = candidate.file_name.to_string_lossy();
        Row {
            name: printable(&candidate.file_name),
            bytes: candidate.bytes,
            // A time in the future is one that has just been.
            idle: now
                .duration_since(candidate.used)
                .map_or(0, |idle| idle.as_secs()),
            in_use: used.contains(&file_name.escape_debug().to_string().as_str()),
        }
    });
    Ok(List {
        rows: rows.collect(),
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
        let row = |row: &Row| json!({ "name": row.name, "bytes": row.bytes, "idle_seconds": row.idle, "in_use": row.in_use });
        json!({
            "blobs": self.rows.iter().map(row).collect::<Vec<_>>(),
            "reclaimable": self.reclaimable(),
            "problem": self.problem,
        })
    }
}

/// For people.
impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>15} {:>12} {:6}  blob", "bytes", "idle s", "")?;
        for row in &self.rows {
            let state = if row.in_use { "in use" } else { "" };
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
