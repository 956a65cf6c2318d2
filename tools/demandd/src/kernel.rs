// SPDX-License-Identifier: GPL-2.0
//! What the kernel says of the caches that are bound: tables in debugfs.
//!
//! A table begins with a line of column names. Fields are separated by blanks, and the last one, a name, may hold
//! blanks itself. Columns are found by their names, so that a kernel module may add some or leave some out.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

/// Where the tables are.
pub const DIR: &str = "/sys/kernel/debug/cachefiles_demand";

/// The tables, and the columns that are shown of each.
const TABLES: [(&str, &[&str]); 3] = [
    (
        "caches",
        &[
            "daemon",
            "linger",
            "timeout",
            "granule",
            "volumes",
            "objects",
            "queued",
            "delivered",
            "oldest_ms",
            "done",
            "failed",
            "hung",
            "done_bytes",
            "culling",
            "stopped",
            "tag",
        ],
    ),
    (
        "objects",
        &[
            "size",
            "present_blocks",
            "complete",
            "hits",
            "misses",
            "seeks",
            "tag/name",
        ],
    ),
    (
        "requests",
        &[
            "id", "state", "age_ms", "start", "len", "waiting", "tag/name",
        ],
    ),
];

/// The columns that hold no numbers.
const WORDS: [&str; 4] = ["daemon", "state", "tag", "tag/name"];

/// All tables.
#[derive(Debug, Default)]
pub struct Kernel {
    tables: Vec<Table>,
    /// What could not be read or understood, a line each.
    problems: Vec<String>,
}

#[derive(Debug)]
struct Table {
    name: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Kernel {
    /// Reads the tables in a directory. What cannot be read is told as a problem.
    pub fn read(dir: &Path) -> Self {
        let mut kernel = Self::default();
        if let Err(error) = fs::metadata(dir) {
            let advice = match error.kind() {
                io::ErrorKind::NotFound => {
                    ": cachefiles_demand is not loaded, or debugfs is not mounted"
                }
                io::ErrorKind::PermissionDenied => ": that takes root",
                _ => "",
            };
            let dir = dir.display();
            kernel
                .problems
                .push(format!("cannot look into {dir}: {error}{advice}"));
            return kernel;
        }
        for (name, columns) in TABLES {
            let path = dir.join(name);
            let text = match fs::read(&path) {
                Ok(text) => text,
                Err(error) => {
                    let path = path.display();
                    kernel.problems.push(format!("cannot read {path}: {error}"));
                    continue;
                }
            };
            let (table, malformed) = Table::parse(name, columns, &String::from_utf8_lossy(&text));
            if malformed > 0 {
                let path = path.display();
                kernel
                    .problems
                    .push(format!("{path}: {malformed} lines make no sense"));
            }
            kernel.tables.push(table);
        }
        kernel
    }

    /// For programs: a list of objects per table, by column, and a list of problems.
    pub fn json(&self) -> Value {
        let tables = self
            .tables
            .iter()
            .map(|table| (table.name.to_owned(), table.json()));
        let mut all: Map<String, Value> = tables.collect();
        all.insert("problems".to_owned(), self.problems.clone().into());
        all.into()
    }
}

/// For people: the tables that have a line, and the problems.
impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            if !table.rows.is_empty() {
                write!(f, "\nkernel: {}\n{table}", table.name)?;
            } else if table.name == "caches" {
                f.write_str("\nkernel: no cache is bound\n")?;
            }
        }
        for problem in &self.problems {
            write!(f, "\nkernel: {problem}\n")?;
        }
        Ok(())
    }
}

impl Table {
    /// Reads a table of which some columns are known; tells how many lines are none of a table.
    fn parse(name: &'static str, known: &[&'static str], text: &str) -> (Self, usize) {
        let mut lines = text.lines();
        let header: Vec<_> = lines
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let found: Vec<(&'static str, usize)> = known
            .iter()
            .filter_map(|column| Some((*column, header.iter().position(|name| name == column)?)))
            .collect();
        let mut table = Self {
            name,
            columns: found.iter().map(|(column, _)| *column).collect(),
            rows: Vec::new(),
        };
        // Without any column that is known there is nothing to tell rows from other lines.
        let mut malformed = usize::from(found.is_empty());
        for line in lines {
            match fields(line, header.len()).and_then(|fields| row(&fields, &found)) {
                Some(row) if !found.is_empty() => table.rows.push(row),
                _ => malformed += 1,
            }
        }
        (table, malformed)
    }

    fn json(&self) -> Value {
        let object = |row: &Vec<String>| {
            let fields = self.columns.iter().zip(row).map(|(column, field)| {
                let value = match WORDS.contains(column) {
                    true => Value::from(field.as_str()),
                    false => field.parse::<u64>().map_or(Value::Null, Value::from),
                };
                ((*column).to_owned(), value)
            });
            Value::Object(fields.collect())
        };
        self.rows.iter().map(object).collect()
    }
}

/// The columns that are shown, out of a line's fields; printable, since a name may hold anything.
fn row(fields: &[&str], columns: &[(&str, usize)]) -> Option<Vec<String>> {
    let mut row = Vec::new();
    for (column, at) in columns {
        let field = fields.get(*at)?;
        if !WORDS.contains(column) {
            field.parse::<u64>().ok()?;
        }
        row.push(field.escape_debug().to_string());
    }
    Some(row)
}

/// The fields of a line that has so many. The last one is what is left.
fn fields(line: &str, count: usize) -> Option<Vec<&str>> {
    let mut fields = Vec::new();
    let mut rest = line.trim_start();
    while fields.len() + 1 < count {
        let (field, behind) = rest.split_once(char::is_whitespace)?;
        fields.push(field);
        rest = behind.trim_start();
    }
    let last = rest.trim_end();
    fields.push(last);
    (!last.is_empty()).then_some(fields)
}

/// Columns as wide as what they hold: numbers to the right, names to the left.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header: Vec<String> = self.columns.iter().map(|name| (*name).to_owned()).collect();
        let lines: Vec<&Vec<String>> = [&header].into_iter().chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for line in &lines {
            for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let last = at + 1 == line.len();
                match (at, last) {
                    (_, true) => write!(f, " {cell}")?,
                    (0, _) => write!(f, "{cell:>width$}")?,
                    _ => write!(f, " {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
