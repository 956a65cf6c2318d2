// SPDX-License-Identifier: GPL-2.0
//! Making an image ready to be served: blobs, the lists of their chunks, and the manifest, in one directory.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{anyhow, bail, ensure, Context, Result};

use super::stamp;
use crate::chunks::Chunks;
use crate::manifest::{check_name, list_file, manifest_file, Entry, Manifest};

/// What to build.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The directory whose tree the image shall have.
    pub tree: &'a Path,
    /// Where blobs and manifest go.
    pub into: &'a Path,
    /// The name of the image.
    pub name: &'a str,
    /// All in one blob, rather than metadata and data apart.
    pub one_blob: bool,
    /// The size of chunks in bytes.
    pub chunk_size: u64,
    /// More options for mkfs.erofs.
    pub options: &'a [String],
}

/// Files that go again unless everything goes well.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    /// Takes responsibility for a file, which must not be there yet.
    fn create(&mut self, path: PathBuf) -> Result<File> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    anyhow!("it is there already, and blobs never change: choose another name")
                }
                _ => error.into(),
            })
            .with_context(|| format!("cannot make {}", path.display()))?;
        self.0.push(path);
        Ok(file)
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            // Whatever failed is told already.
            let _ = fs::remove_file(path);
        }
    }
}

/// Builds an image out of a tree with mkfs.erofs. Returns its manifest.
pub fn build(recipe: &Recipe<'_>) -> Result<Manifest> {
    let Recipe { into, name, .. } = *recipe;
    check_name(name)?;
    let primary = format!("{name}.img");
    let data = format!("{name}.blob");
    let mut made = Made::default();
    // mkfs.erofs opens the blob like a block device, and does not make the file.
    made.create(into.join(&primary))?;
    let mut names = vec![primary.clone()];
    if !recipe.one_blob {
        made.create(into.join(&data))?;
        names.push(data.clone());
    }
    mkfs(recipe, &into.join(&primary), &into.join(&data))?;
    if !recipe.one_blob {
        ensure!(
            fs::metadata(into.join(&data))?.len() > 0,
            "no file of {} has data of its own: make one blob (--one-blob)",
            recipe.tree.display()
        );
        stamp(&into.join(&primary), &[data])?;
    }
    let manifest = describe(into, name, &names, recipe.chunk_size)?;
    made.keep();
    Ok(manifest)
}

fn mkfs(recipe: &Recipe<'_>, primary: &Path, data: &Path) -> Result<()> {
    let mut command = Command::new("mkfs.erofs");
    command.args(["--quiet", "-b", "4096"]);
    if !recipe.one_blob {
        let mut blobdev = OsString::from("--blobdev=");
        blobdev.push(data);
        command.arg("--chunksize=65536").arg(blobdev);
    }
    let status = command
        .args(recipe.options)
        .args([primary, recipe.tree])
        // Standard output is for the result.
        .stdout(Stdio::null())
        .status()
        .context("cannot run mkfs.erofs: install erofs-utils")?;
    if !status.success() {
        bail!("mkfs.erofs failed: {status}");
    }
    Ok(())
}

/// Describes blobs that are there already: writes the lists of their chunks, and then the manifest.
pub fn describe(dir: &Path, name: &str, blobs: &[String], chunk_size: u64) -> Result<Manifest> {
    check_name(name)?;
    let mut made = Made::default();
    let mut entries = Vec::new();
    for blob in blobs {
        check_name(blob)?;
        let path = dir.join(blob);
        let (chunks, digest) = File::open(&path)
            .map_err(anyhow::Error::from)
            .and_then(|file| Chunks::of(&mut BufReader::new(file), chunk_size))
            .with_context(|| format!("cannot describe {}", path.display()))?;
        entries.push(Entry::new(blob, digest, &chunks)?);
        let list = dir.join(list_file(blob));
        // Another image may have the blob, too. Its list says the same, or the blob has changed.
        if fs::read(&list).is_ok_and(|have| have == chunks.list()) {
            continue;
        }
        write(made.create(list)?, chunks.list())?;
    }
    let manifest = Manifest::new(entries)?;
    // Last: whoever sees the manifest finds what it names.
    let file = made.create(dir.join(manifest_file(name)))?;
    write(file, manifest.to_string().as_bytes())?;
    made.keep();
    Ok(manifest)
}

fn write(mut file: File, bytes: &[u8]) -> Result<()> {
    file.write_all(bytes)?;
    Ok(file.sync_all()?)
}
