// SPDX-License-Identifier: GPL-2.0
//! The manifest of an image: which blobs it consists of, and the digests that everything of them is verified with.
//!
//! `Documentation/manifest.md` describes the format. A manifest comes from the network: what is not exactly as described
//! is refused.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use anyhow::{anyhow, bail, ensure, Context, Error, Result};

use crate::chunks::{count, is_chunk_size, Chunks};
use crate::digest::Digest;

/// The largest manifest in bytes.
pub const MANIFEST_MAX: usize = 1 << 20;

/// The most blobs of an image.
pub const BLOBS_MAX: usize = 4096;

/// The longest name of an image or a blob in bytes.
pub const NAME_MAX: usize = 240;

/// What the names of other files end with.
const MANIFEST: &str = ".manifest";
const LIST: &str = ".chunks";

const FIRST_WORD: &str = "erofs-demand-manifest";
const VERSION: &str = "1";

/// One blob of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of all of it.
    pub digest: Digest,
    /// The size of its chunks in bytes.
    pub chunk_size: u64,
    /// The digest of the list of its chunks.
    pub list: Digest,
}

/// The blobs of an image, the primary one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// Which image somebody wants: its name, and the digest that its manifest has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The name.
    pub name: String,
    /// The digest; without it, whatever the source has is taken.
    pub digest: Option<Digest>,
}

/// Whether a name can stand in a manifest. Such a name is a file name, the same in every encoding.
pub fn check_name(name: &str) -> Result<()> {
    ensure!(
        (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
            && name != "."
            && name != "..",
        "{name:?} is no name: it has 1 to {NAME_MAX} letters, digits and signs of ASCII, no space and no slash"
    );
    ensure!(
        !name.ends_with(MANIFEST) && !name.ends_with(LIST),
        "{name:?} would be taken for a manifest or a list of chunks"
    );
    Ok(())
}

/// The file of an image's manifest.
pub fn manifest_file(image: &str) -> String {
    format!("{image}{MANIFEST}")
}

/// The image of which a file is the manifest, if it is one.
pub fn image_of(file: &str) -> Option<&str> {
    file.strip_suffix(MANIFEST)
}

/// The file of the list of a blob's chunks.
pub fn list_file(blob: &str) -> String {
    format!("{blob}{LIST}")
}

impl Entry {
    /// Describes a blob.
    pub fn new(name: &str, digest: Digest, chunks: &Chunks) -> Result<Self> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            size: chunks.blob_size(),
            digest,
            chunk_size: chunks.chunk_size(),
            list: Digest::of(chunks.list()),
        })
    }

    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        let ["blob", name, size, digest, chunk_size, list] = fields[..] else {
            bail!("it is not `blob NAME SIZE DIGEST CHUNK-SIZE LIST`");
        };
        check_name(name)?;
        let entry = Self {
            name: name.to_owned(),
            size: number(size)?,
            digest: digest.parse()?,
            chunk_size: number(chunk_size)?,
            list: list.parse()?,
        };
        ensure!(
            is_chunk_size(entry.chunk_size),
            "no chunk has {chunk_size} bytes"
        );
        ensure!(
            count(entry.size, entry.chunk_size).is_some() && i64::try_from(entry.size).is_ok(),
            "no blob has {size} bytes in chunks of {chunk_size}"
        );
        Ok(entry)
    }

    /// Takes the list of the blob's chunks, if it is the right one.
    pub fn chunks(&self, list: Vec<u8>) -> Result<Chunks> {
        let digest = Digest::of(&list);
        ensure!(
            digest == self.list,
            "the list of the chunks of {} has the digest {digest}, not {}",
            self.name,
            self.list
        );
        Chunks::new(self.size, self.chunk_size, list)
    }
}

/// The line of the blob, without its end.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            size,
            digest,
            chunk_size,
            list,
        } = self;
        write!(f, "blob {name} {size} {digest} {chunk_size} {list}")
    }
}

/// Reads a decimal number that is written the one way it can be.
fn number(text: &str) -> Result<u64> {
    let number: Option<u64> = text.parse().ok();
    number
        .filter(|number| number.to_string() == text)
        .ok_or_else(|| anyhow!("{text:?} is not a number"))
}

impl Manifest {
    /// Puts a manifest together. The first blob is the primary one.
    pub fn new(entries: Vec<Entry>) -> Result<Self> {
        ensure!(!entries.is_empty(), "an image has a blob");
        ensure!(
            entries.len() <= BLOBS_MAX,
            "an image has at most {BLOBS_MAX} blobs"
        );
        let mut names = HashSet::new();
        for Entry { name, .. } in &entries {
            ensure!(names.insert(name), "{name} is there twice");
        }
        Ok(Self { entries })
    }

    /// Reads a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(
            bytes.len() <= MANIFEST_MAX,
            "it has more than {MANIFEST_MAX} bytes"
        );
        let text = std::str::from_utf8(bytes).context("it is not text")?;
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        match first.split_once(' ') {
            Some((FIRST_WORD, VERSION)) => {}
            Some((FIRST_WORD, version)) => bail!(
                "it has version {version:?}, and this demandd knows version {VERSION}: a newer one may know more"
            ),
            _ => bail!("it does not begin with `{FIRST_WORD}`"),
        }
        let lines = rest
            .strip_suffix('\n')
            .ok_or_else(|| anyhow!("its last line has no end, or there is none"))?;
        let mut entries = Vec::new();
        for (number, line) in (2..).zip(lines.split('\n')) {
            ensure!(
                entries.len() < BLOBS_MAX,
                "an image has at most {BLOBS_MAX} blobs"
            );
            entries.push(Entry::parse(line).with_context(|| format!("line {number}"))?);
        }
        Self::new(entries)
    }

    /// The blobs, the primary one first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The digest of the manifest, which stands for the whole image.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_string().as_bytes())
    }
}

/// The text of the manifest's file. What [`Manifest::parse`] takes is written the same way again.
impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_WORD} {VERSION}")?;
        self.entries
            .iter()
            .try_for_each(|entry| writeln!(f, "{entry}"))
    }
}

/// Reads `NAME` or `NAME@DIGEST`.
impl FromStr for Wanted {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, digest) = match text.rsplit_once("@sha256:") {
            Some((name, digits)) => (name, Some(format!("sha256:{digits}").parse()?)),
            None => (text, None),
        };
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            digest,
        })
    }
}

/// As it is read.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let digest = self.digest;
        digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl Wanted {
    /// Reads the manifest of this image.
    pub fn parse(&self, bytes: &[u8]) -> Result<Manifest> {
        let file = manifest_file(&self.name);
        let have = Digest::of(bytes);
        if let Some(digest) = self.digest {
            ensure!(
                have == digest,
                "{file} has the digest {have}, not {digest}: it is another image, or damaged"
            );
        }
        Manifest::parse(bytes).with_context(|| format!("{file} is no manifest"))
    }
}
