// SPDX-License-Identifier: GPL-2.0
//! What is present in a cache, and what the kernel says of the caches that are bound.

use std::fs::File;
use std::io;

use anyhow::{Context, Result};
use serde_json::{json, Value};

use crate::cache::{missing_bytes, Volume};
use crate::kernel::Kernel;

/// How wide a bar is.
const BAR: usize = 20;

/// One blob's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The blob's name, printable.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// How many of them are present.
    pub present: u64,
}

impl Row {
    /// The share that is present, rounded down: 100 means complete.
    pub fn percent(&self) -> u64 {
        match u128::from(self.present)
            .saturating_mul(100)
            .checked_div(u128::from(self.size))
        {
            Some(percent) => u64::try_from(percent).unwrap_or(100),
            None => 100,
        }
    }

    /// The share as a bar, of which only a blob that is complete has all.
    fn bar(&self) -> String {
        let full = usize::try_from(self.percent()).unwrap_or(100) * BAR / 100;
        format!("{:.<BAR$}  ", "#".repeat(full))
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({ "name": self.name, "size": self.size, "present": self.present, "percent": self.percent() })
    }
}

/// All blobs of a volume, by name.
pub fn rows(volume: &Volume) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for entry in volume.list()? {
        let measured: io::Result<(u64, u64)> = File::open(&entry.path).and_then(|file| {
            let size = file.metadata()?.len();
            Ok((size, size.saturating_sub(missing_bytes(&file, size)?)))
        });
        let (size, present) =
            measured.with_context(|| format!("cannot examine {}", entry.path.display()))?;
        rows.push(Row {
            name: entry.name.to_string_lossy().escape_debug().to_string(),
            size,
            present,
        });
    }
    Ok(rows)
}

/// The sum of all rows.
pub fn total(rows: &[Row]) -> Row {
    Row {
        name: "total".to_owned(),
        size: rows.iter().map(|row| row.size).fold(0, u64::saturating_add),
        present: rows
            .iter()
            .map(|row| row.present)
            .fold(0, u64::saturating_add),
    }
}

/// The tables for people, with a bar for each blob's share if that is wanted.
pub fn table(rows: &[Row], kernel: &Kernel, bars: bool) -> String {
    let total = total(rows);
    let head = if bars { BAR + 2 } else { 0 };
    let mut text = format!(
        "{:>15} {:>15} {:>4}  {:head$}blob\n",
        "size", "present", "%", ""
    );
    for row in rows.iter().chain([&total]) {
        text += &format!(
            "{:>15} {:>15} {:>4}  {}{}\n",
            row.size,
            row.present,
            row.percent(),
            if bars { row.bar() } else { String::new() },
            row.name
        );
    }
    text + &kernel.to_string()
}

/// The same for programs.
pub fn json(rows: &[Row], kernel: &Kernel) -> String {
    let mut all = json_rows(rows);
    all["kernel"] = kernel.json();
    all.to_string()
}

/// The blobs alone.
pub fn json_rows(rows: &[Row]) -> Value {
    let total = total(rows);
    json!({
        "blobs": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "total": { "size": total.size, "present": total.present, "percent": total.percent() },
    })
}
