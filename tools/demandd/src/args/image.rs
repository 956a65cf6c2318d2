// SPDX-License-Identifier: GPL-2.0
//! The options of `demandd image`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use demandd::chunks::is_chunk_size;
use demandd::manifest::Wanted;
use demandd::size;

use super::sources::Web;
use super::Sources;

/// Make, look into, name the blobs of, push and verify EROFS images
#[derive(Subcommand)]
pub(crate) enum Image {
    Build(Build),
    Inspect(Inspect),
    Manifest(Manifest),
    Push(Push),
    Stamp(Stamp),
    Verify(Verify),
}

/// Make an image out of a directory, ready to be served
///
/// Runs mkfs.erofs, names the blobs in the image, and writes into one directory: the primary blob NAME.img, the blob
/// NAME.blob with the data of files, for each the list of its chunks (.chunks), and NAME.manifest, with which everything
/// can be verified. Prints the manifest's digest, which stands for all of it. Files that are there already are never
/// replaced.
///
/// Example: demandd image build ./app --name app --into /srv/images
#[derive(Args)]
pub(crate) struct Build {
    /// The directory whose tree the image shall have
    #[arg(value_name = "DIR")]
    pub(crate) tree: PathBuf,
    /// The name of the image
    #[arg(long)]
    pub(crate) name: String,
    /// Where blobs and manifest go
    #[arg(long, value_name = "DIR")]
    pub(crate) into: PathBuf,
    /// Metadata and data in one blob, NAME.img
    #[arg(long)]
    pub(crate) one_blob: bool,
    /// The unit that is fetched and verified: a power of two from 4096 to 4M
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = chunk_size)]
    pub(crate) chunk_size: u64,
    /// More options for mkfs.erofs, behind "--"
    #[arg(last = true, value_name = "OPTION")]
    pub(crate) options: Vec<String>,
}

/// Write the manifest of an image that is there already
///
/// Reads the blobs, which are files of one directory, and writes the list of each one's chunks and the manifest NAME.manifest
/// there. Prints the manifest's digest. The blobs must not change any more, so stamp first.
///
/// Example: demandd image manifest /srv/images --name all all.img base.img extra.img
#[derive(Args)]
pub(crate) struct Manifest {
    /// Where the blobs are
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The name of the image
    #[arg(long)]
    pub(crate) name: String,
    /// The unit that is fetched and verified: a power of two from 4096 to 4M
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = chunk_size)]
    pub(crate) chunk_size: u64,
    /// All blobs of the image, the primary one first
    #[arg(required = true, value_name = "BLOB")]
    pub(crate) blobs: Vec<String>,
}

/// Copy an image to where it is served from
///
/// Copies all files that the manifest NAME.manifest of a directory names, and it itself as the last one, to another
/// directory, to a bucket of S3 or to a registry. What is there already stays, and is an error if it is another file.
/// Everything is compared with the manifest before. Prints a line for each file, and at the end the digest of the manifest,
/// and that of the image in the registry.
///
/// Example: demandd image push /srv/images --name app --to 'oci://registry.example.org/app:1 auth-file=/root/auth.json'
#[derive(Args)]
pub(crate) struct Push {
    /// Where the image is
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The name of the image
    #[arg(long)]
    pub(crate) name: String,
    /// Where it goes: a directory, s3://BUCKET/PREFIX or oci://HOST/IMAGE:TAG, with settings behind it as for a source
    // Parsed later: clap would quote what it refuses, and there may be a password in it.
    #[arg(long, value_name = "DIR|URL")]
    pub(crate) to: OsString,
    #[command(flatten)]
    pub(crate) web: Web,
}

/// Verify what a source has of an image
///
/// Reads the manifest, the lists of chunks and all blobs, and prints a line for each blob: its name, its size, and "good"
/// or which chunks are not as the manifest says. The last line is the digest of the manifest. The status is 1 unless all
/// is good.
///
/// Example: demandd image verify --source /srv/images app
#[derive(Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// The image, perhaps with the digest that its manifest has to have
    #[arg(value_name = "NAME[@DIGEST]")]
    pub(crate) image: Wanted,
}

/// Tell what an EROFS image consists of
///
/// Prints the super block, the features by name, the blobs of the device table, and how many inodes of which type and
/// layout can be reached from the root, with their bytes. Only the image file itself is read, not its blobs.
///
/// Example: demandd image inspect debian.img
#[derive(Args)]
pub(crate) struct Inspect {
    /// The image: the file that holds the metadata
    pub(crate) file: PathBuf,
}

/// Write blob names into an EROFS image
///
/// Puts the names into the device table, one for each blob in order, and mends the checksum, so that the image can be
/// mounted without naming its blobs. Prints what was there before. A mounted or prepared image must not be stamped.
///
/// Example: demandd image stamp debian.img debian.blob
#[derive(Args)]
pub(crate) struct Stamp {
    /// The image: the file that holds the metadata
    pub(crate) file: PathBuf,
    /// The name of every blob, of at most 64 bytes
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

fn chunk_size(text: &str) -> Result<u64, String> {
    match size::parse(text) {
        Some(size) if is_chunk_size(size) => Ok(size),
        _ => Err("it is a power of two from 4096 to 4M".to_owned()),
    }
}
