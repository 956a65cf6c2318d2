// SPDX-License-Identifier: GPL-2.0
//! The options of `demandd`, and the text of `--help`.

// With their paths, because the manual's writer has this file in another place.
#[path = "args/image.rs"]
mod image;
#[path = "args/prefetch.rs"]
mod prefetch;
#[path = "args/sources.rs"]
mod sources;
#[path = "args/verify.rs"]
mod verify;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use demandd::abi::header::CACHEFILES_DEMAND_DEVICE;
use demandd::abi::{Io, Limit, BLOCK};
use demandd::cache::Volume;
use demandd::cull::When;
use demandd::doctor;
use demandd::machine::Machine;
use demandd::source::place::Address;
use demandd::{kernel, size};

pub(crate) use image::Image;
use prefetch::Background;
pub(crate) use prefetch::Prefetch;
use sources::Sources;
pub(crate) use verify::Verify;

/// Fills the cache of the kernel module cachefiles_demand, so that an EROFS image can be mounted before its data has
/// arrived.
#[derive(Parser)]
#[command(name = "demandd", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    Prepare(Prepare),
    Serve(Serve),
    Prefetch(Prefetch),
    Status(Status),
    #[command(subcommand)]
    Image(Image),
    #[command(subcommand)]
    Config(Config),
    Mount(Mount),
    Umount(Umount),
    Gc(Gc),
    Verify(Verify),
    Doctor(Doctor),
    Bugreport(Bugreport),
}

/// The file that options are taken from when no other is named.
pub(crate) const CONFIG: &str = "/etc/demandd.toml";

#[derive(Args)]
pub(crate) struct Place {
    /// Take what is not given here from this file, as from /etc/demandd.toml, if there is one
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The cache: a directory on ext4, XFS or btrfs
    #[arg(long, value_name = "DIR")]
    pub(crate) root: PathBuf,
    /// The volume in the cache; that of EROFS is "erofs"
    #[arg(long, value_name = "NAME", default_value = "erofs")]
    pub(crate) volume: String,
}

impl Place {
    pub(crate) fn volume(&self) -> Result<Volume> {
        Volume::new(&self.root, &self.volume)
    }
}

/// Make the cache files of blobs
///
/// Makes one sparse file per blob, of the blob's exact size, with all the directories and attributes that the kernel
/// looks for. A blob has to be prepared before it is mounted. What exists already is left alone; a file of another size
/// is an error. Prints one line per blob.
///
/// Example: demandd prepare --root /var/cache/demand --source /srv/images debian.img debian.blob
#[derive(Args)]
pub(crate) struct Prepare {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// All blobs of an image that has a manifest, perhaps with the digest of that. From then on everything of them is
    /// verified. Can be given several times. With the directory or the address that has it, it is fetched from there,
    /// whatever the sources of the daemon are. An image of a registry is its address, oci://HOST/IMAGE
    // Looked at later: clap would quote what it refuses, and there may be a password in it.
    #[arg(long = "image", value_name = "[PLACE/]NAME[@DIGEST]")]
    pub(crate) images: Vec<Address>,
    /// Names of blobs; without --source with a size each: NAME=SIZE, in bytes or with K, M, G or T
    #[arg(required_unless_present = "images", value_name = "NAME[=SIZE]")]
    pub(crate) blobs: Vec<OsString>,
}

/// Answer the kernel's requests
///
/// Binds the cache, prints "demandd: ready", then fetches every range that a reader waits for from the source, where
/// each blob is a file of its name, until SIGTERM or SIGINT: then it answers what it has read already, prints what it
/// served, and ends; a second signal ends it at once. When a range cannot be had, the reader gets ENOSPC if the
/// cache's file system is full and EIO for every other reason, which the log tells.
///
/// However it ends, the cache stays in service for a while (see --linger): readers wait for the next daemon, which is
/// how demandd is upgraded. When the disk gets full, blobs that no mount uses are removed from the cache.
///
/// Example: demandd serve --root /var/cache/demand --source /srv/images
#[derive(Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// The name of the cache, which mount's tag= option can ask for
    #[arg(long, value_name = "NAME", default_value = "CacheFiles")]
    pub(crate) tag: String,
    /// The kernel's device
    #[arg(long, value_name = "PATH", default_value = OsStr::new(device_path()))]
    pub(crate) device: PathBuf,
    /// How many requests to fetch at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: u16,
    /// Append a line per request to this file, before the answer: id, blob, offset, length, and "done" or "fail ERRNO",
    /// separated by tabs
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Wait before every request, to see what a slow network does
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) delay_ms: u64,
    /// How many blobs to keep open between requests
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) limit_open: u16,
    /// How long readers wait for the next daemon once this one is gone; 0: they get EIO at once. The kernel's default
    /// is 30
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=WEEK))]
    pub(crate) linger: Option<u32>,
    /// How long a reader waits for an answer before it gets ETIMEDOUT; 0, the kernel's default: without limit
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=WEEK))]
    pub(crate) timeout: Option<u32>,
    /// Ask for no less than this at a time: a power of two from 4096, the kernel's default, to 16M
    #[arg(long, value_name = "SIZE", value_parser = granule)]
    pub(crate) granule: Option<u64>,
    /// How the kernel reads cache files, for measurements
    #[arg(long, value_enum)]
    pub(crate) io: Option<IoMode>,
    /// Remove blobs that no mount uses when the kernel says that the disk is nearly full
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub(crate) cull: Switch,
    /// Remove blobs that no mount uses when all of them take more of the disk than this, in bytes or with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) limit_size: Option<u64>,
    /// End in order on SIGTERM or SIGINT: take the cache out of service, so that readers get EIO rather than wait for
    /// the next daemon
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "true|false",
          default_value_t = false, default_missing_value = "true")]
    pub(crate) unbind_at_exit: bool,
    /// Answer questions of monitoring on a Unix socket of this path: HTTP, for root only
    #[arg(long, value_name = "PATH")]
    pub(crate) api: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) background: Background,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

impl Serve {
    /// When blobs are removed.
    pub(crate) fn when(&self) -> Option<When> {
        let when = When {
            disk: self.cull == Switch::On,
            size: self.limit_size,
            patience: CULL_PATIENCE,
        };
        (when.disk || when.size.is_some()).then_some(when)
    }
}

/// When nothing is left to cull, look again after this time.
const CULL_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args)]
#[command(next_help_heading = "Limits on free space; stop < cull < run must hold")]
pub(crate) struct Limits {
    /// Cull until more of the disk's blocks than this are free; the kernel's default is 7%
    #[arg(long, value_name = "N%", value_parser = percent)]
    pub(crate) brun: Option<u8>,
    /// Cull when fewer blocks than this are free; the kernel's default is 5%
    #[arg(long, value_name = "N%", value_parser = percent)]
    pub(crate) bcull: Option<u8>,
    /// Fetch nothing when fewer blocks than this are free; the kernel's default is 1%
    #[arg(long, value_name = "N%", value_parser = percent)]
    pub(crate) bstop: Option<u8>,
    /// As --brun, of files that can still be made
    #[arg(long, value_name = "N%", value_parser = percent)]
    pub(crate) frun: Option<u8>,
    /// As --bcull, of files that can still be made
    #[arg(long, value_name = "N%", value_parser = percent)]
    pub(crate) fcull: Option<u8>,
    /// As --bstop, of files that can still be made
    #[arg(long, value_name = "N%", value_parser = percent)]
    pub(crate) fstop: Option<u8>,
}

impl Limits {
    pub(crate) fn given(&self) -> Vec<(Limit, u8)> {
        let all = [
            (Limit::Brun, self.brun),
            (Limit::Bcull, self.bcull),
            (Limit::Bstop, self.bstop),
            (Limit::Frun, self.frun),
            (Limit::Fcull, self.fcull),
            (Limit::Fstop, self.fstop),
        ];
        let given = all.into_iter().filter_map(|(limit, n)| Some((limit, n?)));
        given.collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum IoMode {
    /// The kernel chooses, read by read
    Auto,
    /// Past the page cache of the cache file
    Direct,
    /// Through it
    Buffered,
}

impl From<IoMode> for Io {
    fn from(mode: IoMode) -> Self {
        match mode {
            IoMode::Auto => Self::Auto,
            IoMode::Direct => Self::Direct,
            IoMode::Buffered => Self::Buffered,
        }
    }
}

/// The longest time that the kernel takes, in seconds.
const WEEK: i64 = 604_800;

fn granule(text: &str) -> Result<u64, String> {
    match size::parse(text) {
        Some(size) if size.is_power_of_two() && (BLOCK..=16 << 20).contains(&size) => Ok(size),
        _ => Err("it is a power of two from 4096 to 16M".to_owned()),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let size = size::parse(text);
    size.ok_or_else(|| "it is a number of bytes, perhaps with K, M, G or T behind it".to_owned())
}

fn percent(text: &str) -> Result<u8, String> {
    match text.strip_suffix('%').unwrap_or(text).parse() {
        Ok(percent @ 0..=99) => Ok(percent),
        _ => Err("it is a whole number from 0% to 99%".to_owned()),
    }
}

/// Tell what is present
///
/// Prints for every blob of the cache how many bytes it has, how many of them are present, and the share in per cent,
/// rounded down. It needs no running daemon, and no more than the right to read the cache.
///
/// Then it prints what the kernel says of all caches that are bound: whether a daemon is connected, which blobs are in
/// use, which requests wait. That takes root.
///
/// Example: demandd status --root /var/cache/demand --json
#[derive(Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Where the kernel's tables are
    #[arg(long, value_name = "DIR", default_value = kernel::DIR)]
    pub(crate) kernel: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Print it again and again, after so many seconds each; 2 if none are given
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) watch: Option<u32>,
}

/// For whom the result is.
#[derive(Args)]
pub(crate) struct Output {
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Output {
    /// What is printed: a text, or else JSON.
    pub(crate) fn of<P: fmt::Display>(
        &self,
        people: &impl fmt::Display,
        programs: impl FnOnce() -> P,
    ) -> String {
        match self.json {
            true => format!("{}\n", programs()),
            false => people.to_string(),
        }
    }

    pub(crate) fn is_for_programs(&self) -> bool {
        self.json
    }
}

/// Look at the configuration file
#[derive(Subcommand)]
pub(crate) enum Config {
    Check(ConfigCheck),
}

/// Check the configuration file
///
/// Tells whether `demandd serve` would understand the file: its keys and values, not whether the directories that it
/// names are there; for that, see `demandd doctor`.
///
/// Example: demandd config check /etc/demandd.toml
#[derive(Args)]
pub(crate) struct ConfigCheck {
    /// The file
    #[arg(value_name = "FILE", default_value = CONFIG)]
    pub(crate) file: PathBuf,
}

/// Mount an image, and see to everything that takes
///
/// Makes the cache files of the image and of its other blobs; starts a daemon, unless one serves the cache; loads the
/// kernel modules; mounts. What cannot be had is named, with what to do.
///
/// An image that has a manifest is given by its name, best with the digest of the manifest, and perhaps with the
/// directory or the address that has it, which need not be a source of the daemon then; KEY=VALUE as for --source stand
/// behind it. An image of a registry is given by its address: oci://HOST/IMAGE with :TAG or @sha256:DIGEST. Any other
/// image is given by the name of its primary blob; a source that is a directory must have it, or it must have been
/// prepared.
///
/// A daemon that is started from here is the service demandd, if the configuration is about the same cache, or else a
/// process in the background, which writes to demandd.log in the cache.
///
/// Example: demandd mount --root /var/cache/demand /srv/images/app@sha256:3b0c...91 /mnt
#[derive(Args)]
pub(crate) struct Mount {
    #[command(flatten)]
    pub(crate) site: Site,
    /// The name of another blob, in the order of the image's device table: all of them, or none if the table names them
    #[arg(long = "blob", value_name = "NAME")]
    pub(crate) blobs: Vec<String>,
    /// More options of mount(8), separated by commas
    #[arg(short = 'o', long, value_name = "OPTIONS")]
    pub(crate) options: Option<String>,
    /// The image
    // Looked at later, too.
    #[arg(value_name = "[PLACE/]NAME[@DIGEST]")]
    pub(crate) image: Address,
    /// The mount point
    pub(crate) dir: PathBuf,
}

/// Unmount an image
///
/// Unmounts what is mounted on a directory, if it is an EROFS image.
///
/// Example: demandd umount /mnt
#[derive(Args)]
pub(crate) struct Umount {
    /// The mount point
    pub(crate) dir: PathBuf,
}

/// Tell what culling would remove
///
/// Prints every blob of which something is present, the one that was not used for longest first, in the order in which
/// culling takes them: how many bytes of the disk it has, for how long it was not used, and whether a mount uses it, so
/// that it stays. With a limit on their size, those that have to go for it are marked. A daemon that serves knows when
/// it last fetched something of a blob; this goes by the last change of the cache file. What is in use the kernel
/// tells, which takes root. Nothing is removed.
///
/// Example: demandd gc --root /var/cache/demand --dry-run
#[derive(Args)]
pub(crate) struct Gc {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Only tell: to remove blobs is for the daemon, or, of what no mount uses, for rm
    #[arg(long, required = true)]
    pub(crate) dry_run: bool,
    /// What all blobs together may take of the disk, in bytes or with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) limit_size: Option<u64>,
    /// The name of the cache
    #[arg(long, value_name = "NAME", default_value = "CacheFiles")]
    pub(crate) tag: String,
    /// Where the kernel's tables are
    #[arg(long, value_name = "DIR", default_value = kernel::DIR)]
    pub(crate) kernel: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Look for what is wrong
///
/// Looks at the kernel, the modules, the device, rights and limits, the file system of the cache, the source and the
/// daemon. Prints a line for each, and below what is not good what to do. The status is 1 if something is bad. Nothing
/// is changed.
///
/// Example: demandd doctor --root /var/cache/demand --source /srv/images
#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) site: Site,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Print what a report of a problem needs
///
/// Versions, what `demandd doctor` and `demandd status` say, the kernel's tables, the lines of its log that are about
/// us, mounts, and the daemon's limits. Of the configuration there are keys and no values, since those may be secret;
/// names of blobs and directories are in it. Without root much is left out.
///
/// Example: demandd bugreport >report.txt
#[derive(Args)]
pub(crate) struct Bugreport {
    #[command(flatten)]
    pub(crate) site: Site,
}

/// What is looked at.
#[derive(Args)]
pub(crate) struct Site {
    /// Take what is not given here from this file, as from /etc/demandd.toml, if there is one
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The cache
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// The volume in the cache
    #[arg(long, value_name = "NAME", default_value = "erofs")]
    pub(crate) volume: String,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// The name of the cache
    #[arg(long, value_name = "NAME", default_value = "CacheFiles")]
    pub(crate) tag: String,
    /// Look at the machine whose files are below this directory
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    pub(crate) machine: PathBuf,
}

impl Site {
    pub(crate) fn machine(&self) -> Machine {
        Machine::new(&self.machine)
    }

    pub(crate) fn wanted(&self) -> doctor::Wanted {
        doctor::Wanted {
            root: self.root.clone(),
            volume: self.volume.clone(),
            sources: self.sources.mirrors().transpose(),
            tag: self.tag.clone(),
        }
    }
}

/// The device that the header names.
fn device_path() -> &'static str {
    CACHEFILES_DEMAND_DEVICE.to_str().unwrap_or_default()
}
