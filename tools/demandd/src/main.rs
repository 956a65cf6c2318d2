// SPDX-License-Identifier: GPL-2.0
//! The command line of `demandd`.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use clap::{Args, Parser, Subcommand};
use demandd::abi::header::CACHEFILES_DEMAND_DEVICE;
use demandd::blobs::Blobs;
use demandd::cache::{Prepared, Volume};
use demandd::device::{bind, Node};
use demandd::log;
use demandd::prefetch::{self, Target};
use demandd::source::Source;
use demandd::{image, serve, status};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Fills the cache of the kernel module cachefiles_demand, so that an EROFS image can be mounted before its data has
/// arrived.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Prepare(Prepare),
    Serve(Serve),
    Prefetch(Prefetch),
    Status(Status),
    #[command(subcommand)]
    Image(Image),
}

#[derive(Args)]
struct Place {
    /// The cache: a directory on ext4, XFS or btrfs
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// The volume in the cache; that of EROFS is "erofs"
    #[arg(long, value_name = "NAME", default_value = "erofs")]
    volume: String,
}

impl Place {
    fn volume(&self) -> Result<Volume> {
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
struct Prepare {
    #[command(flatten)]
    place: Place,
    /// Take the sizes from the files of this directory
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Names of blobs; without --source with a size each: NAME=SIZE, in bytes or with K, M, G or T
    #[arg(required = true, value_name = "NAME[=SIZE]")]
    blobs: Vec<OsString>,
}

/// Answer the kernel's requests
///
/// Binds the cache, prints "demandd: ready", then fetches every range that a reader waits for from the source, where
/// each blob is a file of its name, until SIGTERM or SIGINT: then it answers what it has read already, prints what it
/// served, and ends; a second signal ends it at once. When a range cannot be had, the reader gets ENOSPC if the
/// cache's file system is full and EIO for every other reason, which the log tells.
///
/// Example: demandd serve --root /var/cache/demand --source /srv/images
#[derive(Args)]
struct Serve {
    #[command(flatten)]
    place: Place,
    /// The directory that has the blobs
    #[arg(long, value_name = "DIR")]
    source: PathBuf,
    /// The name of the cache, which mount's tag= option can ask for
    #[arg(long, value_name = "NAME", default_value = "CacheFiles")]
    tag: String,
    /// The kernel's device
    #[arg(long, value_name = "PATH", default_value = OsStr::new(device_path()))]
    device: PathBuf,
    /// How many requests to fetch at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Append a line per request to this file, before the answer: id, blob, offset, length, and "done" or "fail ERRNO",
    /// separated by tabs
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Wait before every request, to see what a slow network does
    #[arg(long, value_name = "N", default_value_t = 0)]
    delay_ms: u64,
    /// How many blobs to keep open between requests
    #[arg(long, value_name = "N", default_value_t = 256)]
    limit_open: u16,
}

/// Fetch what is missing before it is read
///
/// Copies the ranges that the cache lacks from the source: of all blobs, of some, or of parts of them. It may run while
/// the blobs are mounted and served. Prints how much of each it fetched.
///
/// Example: demandd prefetch --root /var/cache/demand --source /srv/images debian.img debian.blob:0+1048576
#[derive(Args)]
struct Prefetch {
    #[command(flatten)]
    place: Place,
    /// The directory that has the blobs
    #[arg(long, value_name = "DIR")]
    source: PathBuf,
    /// Every blob that was prepared
    #[arg(long)]
    all: bool,
    /// Blobs, or ranges of them in bytes
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        value_name = "NAME[:OFF+LEN]"
    )]
    targets: Vec<OsString>,
}

/// Tell what is present
///
/// Prints for every blob of the cache how many bytes it has, how many of them are present, and the share in per cent,
/// rounded down. It needs no running daemon and no root.
///
/// Example: demandd status --root /var/cache/demand --json
#[derive(Args)]
struct Status {
    #[command(flatten)]
    place: Place,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Look into an EROFS image, or name its blobs
#[derive(Subcommand)]
enum Image {
    Inspect(Inspect),
    Stamp(Stamp),
}

/// Tell what an EROFS image consists of
///
/// Prints the super block, the features by name, the blobs of the device table, and how many inodes of which type and
/// layout can be reached from the root, with their bytes. Only the image file itself is read, not its blobs.
///
/// Example: demandd image inspect debian.img
#[derive(Args)]
struct Inspect {
    /// The image: the file that holds the metadata
    file: PathBuf,
}

/// Write blob names into an EROFS image
///
/// Puts the names into the device table, one for each blob in order, and mends the checksum, so that the image can be
/// mounted without naming its blobs. Prints what was there before. A mounted or prepared image must not be stamped.
///
/// Example: demandd image stamp debian.img debian.blob
#[derive(Args)]
struct Stamp {
    /// The image: the file that holds the metadata
    file: PathBuf,
    /// The name of every blob, of at most 64 bytes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// The device that the header names.
fn device_path() -> &'static str {
    CACHEFILES_DEMAND_DEVICE.to_str().unwrap_or_default()
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Prepare(args) => prepare(&args),
        Verb::Serve(args) => serve(&args),
        Verb::Prefetch(args) => prefetch(&args),
        Verb::Status(args) => {
            let rows = status::rows(&args.place.volume()?)?;
            print(&if args.json {
                status::json(&rows) + "\n"
            } else {
                status::table(&rows)
            })
        }
        Verb::Image(Image::Inspect(args)) => print(&image::inspect(&args.file)?.to_string()),
        Verb::Image(Image::Stamp(args)) => print(&image::stamp(&args.file, &args.names)?),
    }
}

/// Prints a result. That nobody reads it is an error: it was all there is to tell.
fn print(text: &str) -> Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write the result")
}

fn prepare(args: &Prepare) -> Result<()> {
    let volume = args.place.volume()?;
    let source = args.source.as_deref().map(Source::new).transpose()?;
    for blob in &args.blobs {
        let (name, size) = match &source {
            Some(source) => (blob.as_os_str(), source.open(blob)?.1),
            None => named_size(blob)?,
        };
        let prepared = volume.prepare(name, size)?;
        let what = match prepared {
            Prepared::Created => "created",
            Prepared::Existed => "exists",
        };
        let path = volume.path(name)?;
        print(&format!("{what}\t{size}\t{}\n", path.display()))?;
    }
    Ok(())
}

/// Reads `NAME=SIZE`. A name may have equals signs of its own.
fn named_size(text: &OsStr) -> Result<(&OsStr, u64)> {
    let parsed = text.to_str().and_then(|text| {
        let (name, size) = text.rsplit_once('=')?;
        let shift = match size.bytes().last()? {
            b'K' => 10,
            b'M' => 20,
            b'G' => 30,
            b'T' => 40,
            _ => 0,
        };
        let number: u64 = size
            .strip_suffix(['K', 'M', 'G', 'T'])
            .unwrap_or(size)
            .parse()
            .ok()?;
        Some((OsStr::new(name), number.checked_mul(1 << shift)?))
    });
    parsed.ok_or_else(|| {
        anyhow!("{text:?} is not NAME=SIZE; to take sizes from files, give --source")
    })
}

fn serve(args: &Serve) -> Result<()> {
    // The signals come first: one that arrives while the cache is being bound must not be lost.
    let stop = stop_signals().context("cannot handle signals")?;
    let volume = args.place.volume()?;
    let source = Source::new(&args.source)?;
    ensure!(
        volume.dir().is_dir(),
        "no volume {}: run `demandd prepare` first",
        volume.dir().display()
    );
    let trace = match &args.trace {
        Some(path) => Some(
            OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .with_context(|| format!("cannot open the trace {}", path.display()))?,
        ),
        None => None,
    };
    let device = Node::open(&args.device)?;
    bind(&device, &args.place.root, &args.tag)?;
    say("demandd: ready");
    let blobs = Blobs::new(volume, source, args.limit_open.into());
    let options = serve::Options {
        workers: args.workers.into(),
        delay: Duration::from_millis(args.delay_ms),
        trace,
    };
    let summary = serve::serve(&device, &blobs, options, stop.as_fd())?;
    say(&summary.to_string());
    Ok(())
}

/// Prints a line for whoever started the daemon. That nobody reads it is no reason to stop serving.
fn say(line: &str) {
    let mut stdout = std::io::stdout();
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        log!("cannot write to standard output: {error}");
    }
}

/// A socket that can be read once SIGTERM or SIGINT has come.
fn stop_signals() -> Result<UnixStream> {
    let (stop, sender) = UnixStream::pair()?;
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // The order counts: the first signal must not find the flag set.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stopping))?;
        signal_hook::flag::register(signal, Arc::clone(&stopping))?;
        signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    Ok(stop)
}

fn prefetch(args: &Prefetch) -> Result<()> {
    let volume = args.place.volume()?;
    let source = Source::new(&args.source)?;
    let targets = if args.all {
        prefetch::all(&volume, &source)?
    } else {
        args.targets
            .iter()
            .map(|text| Target::parse(text))
            .collect()
    };
    let mut failed = 0;
    for target in &targets {
        match prefetch::prefetch(&volume, &source, target) {
            Ok(bytes) => print(&format!(
                "{}: fetched {bytes} bytes\n",
                target.blob.to_string_lossy()
            ))?,
            // The other blobs may fare better.
            Err(error) => {
                failed += 1;
                log!("{error:#}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} could not be fetched", targets.len());
    }
    Ok(())
}
