// SPDX-License-Identifier: GPL-2.0
//! The verbs of `demandd`.
#![forbid(unsafe_code)]

mod args;
mod config;
mod reload;
mod upkeep;

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use args::{Config, Image, Mount, Prefetch, Prepare, Serve, Site, Status, Verb, Verify, CONFIG};
use config::Parsed;
use demandd::abi::header::CACHEFILES_DEMAND_DEVICE;
use demandd::abi::Io;
use demandd::api::Api;
use demandd::blobs::Blobs;
use demandd::cache::{Prepared, Volume};
use demandd::counts::Counts;
use demandd::device::{bind, take_back, unbind, Device, Node, Settings};
use demandd::gate::Gate;
use demandd::image::build::{build, describe, Recipe};
use demandd::image::{prepare::prepare as prepare_image, verify::verify as verify_image};
use demandd::kernel::Kernel;
use demandd::log;
use demandd::machine::Machine;
use demandd::manifest::Wanted;
use demandd::mount::{self, Wish, READY};
use demandd::notify::{self, Manager};
use demandd::prefetch::{self, Queue};
use demandd::source::place::{Address, Place};
use demandd::store::{self, Store};
use demandd::{doctor, gc, http, image, report, serve, size, status, verify};
use reload::Reload;
use rustix::mm::{mlockall, MlockAllFlags};
use rustix::thread::{capabilities, CapabilitySet};
use signal_hook::consts::{SIGHUP, SIGINT, SIGIO, SIGTERM};
use upkeep::Upkeep;

/// A cache file that no request needs is closed after this time.
const IDLE: Duration = Duration::from_secs(10);

/// How many blobs `prefetch` keeps open.
const OPEN: usize = 16;

/// How long a repair waits for somebody else to close a file: the daemon does, some time after the last request.
const REPAIR_PATIENCE: Duration = Duration::from_secs(25);

/// What the service manager calls the device.
const KEPT: &str = "device";

fn main() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().collect();
    match run(&line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // It knows how to print itself, and which status is usual.
            if let Some(error) = error.downcast_ref::<clap::Error>() {
                error.exit();
            }
            log!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(line: &[OsString]) -> Result<()> {
    let parsed = config::parse(line)?;
    match &parsed.verb {
        Verb::Prepare(args) => prepare(args),
        Verb::Serve(args) => serve(args, line, &parsed),
        Verb::Prefetch(args) => prefetch(args),
        Verb::Status(args) => tell_status(args),
        Verb::Image(verb) => image(verb),
        Verb::Mount(args) => mount_image(args),
        Verb::Umount(args) => mount::umount(&Machine::new(Path::new("/")), &args.dir),
        Verb::Gc(args) => {
            let kernel = Kernel::read(&args.kernel);
            let list = gc::list(&args.place.volume()?, &kernel, &args.tag, args.limit_size)?;
            print(&args.output.of(&list, || list.json()))
        }
        Verb::Verify(args) => verify_cache(args),
        Verb::Doctor(args) => {
            let found = doctor::look(&args.site.machine(), &args.site.wanted());
            print(&args.output.of(&found, || found.json()))?;
            match found.count_bad() {
                0 => Ok(()),
                bad => bail!("{bad} of {} are bad", found.0.len()),
            }
        }
        Verb::Bugreport(args) => print(&report::report(
            &args.site.machine(),
            &args.site.wanted(),
            &config::keys(args.site.config.as_deref()),
        )),
        Verb::Config(Config::Check(args)) => {
            config::check(&args.file)?;
            print(&format!("{}: good\n", args.file.display()))
        }
    }
}

fn verify_cache(args: &Verify) -> Result<()> {
    if args.repair {
        // That somebody waits for a file which is being repaired is no reason to end; he does not wait for long.
        signal_hook::flag::register(SIGIO, Arc::default()).context("cannot handle signals")?;
    }
    let told = Cell::new(Instant::now());
    let shown = std::io::stderr().is_terminal();
    let progress = |name: &str, pos: u64, size: u64| {
        if shown && told.get().elapsed() >= Duration::from_secs(1) {
            told.set(Instant::now());
            let percent = u128::from(pos) * 100 / u128::from(size.max(1));
            eprint!("\r\x1b[K{name}: {percent} %");
        }
    };
    let work = verify::Work {
        rate: args.rate,
        repair: args.repair.then_some(REPAIR_PATIENCE),
        progress: &progress,
    };
    let report = verify::verify(&args.place.volume()?, &args.blobs, &work)?;
    if shown {
        eprint!("\r\x1b[K");
    }
    print(&args.output.of(&report, || report.json()))?;
    match report.bad() {
        0 => Ok(()),
        bad => bail!("{bad} of {} blobs are not good", report.0.len()),
    }
}

/// Once, or until nobody reads it any more.
fn tell_status(args: &Status) -> Result<()> {
    let clear = match args.watch.is_some() && std::io::stdout().is_terminal() {
        true => "\x1b[H\x1b[2J",
        false => "",
    };
    loop {
        let rows = status::rows(&args.place.volume()?)?;
        let kernel = Kernel::read(&args.kernel);
        print(&match args.output.is_for_programs() {
            true => status::json(&rows, &kernel) + "\n",
            false => clear.to_owned() + &status::table(&rows, &kernel, args.watch.is_some()),
        })?;
        match args.watch {
            Some(seconds) => std::thread::sleep(Duration::from_secs(seconds.into())),
            None => return Ok(()),
        }
    }
}

/// Prints a result. That nobody reads it is an error: it was all there is to tell.
fn print(text: &str) -> Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write the result")
}

fn image(verb: &Image) -> Result<()> {
    match verb {
        Image::Build(args) => {
            let recipe = Recipe {
                tree: &args.tree,
                into: &args.into,
                name: &args.name,
                one_blob: args.one_blob,
                chunk_size: args.chunk_size,
                options: &args.options,
            };
            print(&format!("{}\n", build(&recipe)?.digest()))
        }
        Image::Manifest(args) => {
            let manifest = describe(&args.dir, &args.name, &args.blobs, args.chunk_size)?;
            print(&format!("{}\n", manifest.digest()))
        }
        Image::Push(args) => {
            let store = Place::parse(&args.to)?.store(&args.web.options())?;
            push(&args.dir, &args.name, &*store)
        }
        Image::Inspect(args) => print(&image::inspect(&args.file)?.to_string()),
        Image::Stamp(args) => print(&image::stamp(&args.file, &args.names)?),
        Image::Verify(args) => {
            let report = verify_image(&*args.sources.required()?, &args.image)?;
            print(&report.to_string())?;
            ensure!(report.is_good(), "what the source has is not the image");
            Ok(())
        }
    }
}

fn push(dir: &Path, name: &str, store: &dyn Store) -> Result<()> {
    let mut digest = None;
    let there = store::push(dir, name, store, |item, had| {
        digest = Some(item.digest);
        let what = if had { "exists" } else { "pushed" };
        print(&format!("{what}\t{}\t{}\n", item.size, item.name))
    })?;
    // The manifest came last.
    for (what, digest) in [("manifest", digest), ("image", there)] {
        if let Some(digest) = digest {
            print(&format!("{what}\t{digest}\n"))?;
        }
    }
    Ok(())
}

fn prepare(args: &Prepare) -> Result<()> {
    let volume = args.place.volume()?;
    let sources = args.sources.mirrors()?;
    // A name that is none is told before anything is made.
    for address in &args.images {
        if let Address::Named { name, .. } = address {
            name.parse::<Wanted>()?;
        }
    }
    for address in &args.images {
        let address = address.full()?;
        let there = address.place();
        let there = there.map(|place| args.sources.only(place).required());
        let there = there.transpose()?;
        let sources = there.as_ref().or(sources.as_ref());
        let sources = sources.context("--image needs a --source")?;
        let (name, place) = address.look_up(Some(sources))?;
        prepare_image(
            &volume,
            sources,
            &name.parse()?,
            place.as_deref(),
            |entry, prepared| tell_prepared(&volume, OsStr::new(&entry.name), entry.size, prepared),
        )?;
    }
    for blob in &args.blobs {
        let (name, size) = match &sources {
            Some(sources) => (blob.as_os_str(), sources.local(blob)?.1),
            None => named_size(blob)?,
        };
        let prepared = volume.prepare(name, size)?;
        tell_prepared(&volume, name, size, prepared)?;
    }
    Ok(())
}

fn tell_prepared(volume: &Volume, name: &OsStr, size: u64, prepared: Prepared) -> Result<()> {
    let what = match prepared {
        Prepared::Created => "created",
        Prepared::Existed => "exists",
    };
    let path = volume.path(name)?;
    print(&format!("{what}\t{size}\t{}\n", path.display()))
}

fn mount_image(args: &Mount) -> Result<()> {
    let site = &args.site;
    let root = site.root.as_deref().context("give the cache: --root")?;
    let root = std::path::absolute(root)?;
    let image = args.image.full()?;
    let sources = match image.place() {
        Some(place) => &site.sources.only(place),
        None => &site.sources,
    };
    let wish = Wish {
        devices: args.blobs.clone(),
        tag: site.tag.clone(),
        options: args.options.clone(),
        dir: args.dir.clone(),
        mirrors: sources.mirrors()?,
        directories: sources.directories(),
        daemon: (!sources.is_empty()).then(|| daemon(site, &root, image.place())),
        image,
    };
    mount::mount(&site.machine(), &Volume::new(&root, &site.volume)?, &wish)
}

/// How a daemon for a cache is started.
fn daemon(site: &Site, root: &Path, place: Option<&OsStr>) -> mount::Daemon {
    let device = site
        .machine()
        .path(CACHEFILES_DEMAND_DEVICE.to_str().unwrap_or_default());
    let mut options: Vec<OsString> = vec!["serve".into()];
    let mut add = |option: &str, value: &OsStr| options.extend([option.into(), value.to_owned()]);
    add("--root", root.as_os_str());
    add("--volume", site.volume.as_ref());
    add("--tag", site.tag.as_ref());
    add("--device", device.as_os_str());
    if let Some(config) = &site.config {
        let path = std::path::absolute(config);
        add("--config", path.as_deref().unwrap_or(config).as_os_str());
    }
    // What is at the place is found without this; but a daemon has a source.
    match place.filter(|_| site.sources.is_empty()) {
        Some(place) => options.extend(site.sources.only(place).to_options()),
        None => options.extend(site.sources.to_options()),
    }
    mount::Daemon {
        service: is_service(site, root),
        options,
        log: root.join("demandd.log"),
    }
}

/// Whether the service of this system would serve a cache.
fn is_service(site: &Site, root: &Path) -> bool {
    let usual = site.config.as_deref().unwrap_or(Path::new(CONFIG)) == Path::new(CONFIG);
    let systemd = site.machine().path("/run/systemd/system").is_dir();
    if !usual || !systemd {
        return false;
    }
    let line = ["demandd", "serve"].map(OsString::from);
    match config::parse(&line).map(|parsed| parsed.verb) {
        Ok(Verb::Serve(serve)) => {
            serve.place.root == root && serve.place.volume == site.volume && serve.tag == site.tag
        }
        _ => false,
    }
}

/// Reads `NAME=SIZE`. A name may have equals signs of its own.
fn named_size(text: &OsStr) -> Result<(&OsStr, u64)> {
    let parsed = text.to_str().and_then(|text| {
        let (name, size) = text.rsplit_once('=')?;
        Some((OsStr::new(name), size::parse(size)?))
    });
    parsed.ok_or_else(|| {
        anyhow!("{text:?} is not NAME=SIZE; to take sizes from files, give --source")
    })
}

/// Keeps memory that was used once from being swapped out. A write to a cache file must find its bytes in memory: one
/// that has to wait for them, and is killed meanwhile, can leave zeros behind that ext4 shows as data.
fn lock_memory() -> Result<()> {
    // Without the right to lock as much as one likes, later allocations would fail.
    if !capabilities(None)?
        .effective
        .contains(CapabilitySet::IPC_LOCK)
    {
        return Ok(());
    }
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(flags).context("cannot lock the memory")
}

fn serve(args: &Serve, line: &[OsString], parsed: &Parsed) -> Result<()> {
    lock_memory()?;
    // The signals come first: one that arrives while the cache is being bound must not be lost.
    let stop = stop_signals().context("cannot handle signals")?;
    let hangup = hangups().context("cannot handle signals")?;
    let volume = args.place.volume()?;
    let sources = args.sources.required()?;
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
    let prefetch = args.background.plan(&volume, &sources)?;
    let settings = Settings {
        limits: args.limits.given(),
        linger: args.linger,
        timeout: args.timeout,
        granule: args.granule,
        io: args.io.map(Io::from),
    };
    let socket = args.api.as_deref().map(http::listen).transpose()?;
    let manager = Manager::from_env();
    let device = device(args, &volume, &settings, manager.as_ref())?;
    say(READY);
    let blobs = Blobs::new(volume, sources, args.limit_open.into(), IDLE);
    let counts = Arc::<Counts>::default();
    let queue = Arc::clone(&prefetch.queue);
    let options = serve::Options {
        workers: args.workers.into(),
        delay: Duration::from_millis(args.delay_ms),
        trace,
        cull: args.when(),
        counts: Arc::clone(&counts),
        prefetch,
    };
    let reload = Reload::new(line, parsed, &device, blobs.mirrors());
    let api = Api {
        counts: &counts,
        queue: &queue,
        blobs: &blobs,
        device: &device,
        reload: &|| reload.reload(),
    };
    let upkeep = Upkeep {
        api: socket.as_ref().map(|socket| (&api, socket)),
        manager: manager.as_ref(),
        blobs: &blobs,
        counts: &counts,
        stop: stop.as_fd(),
        hangup: &hangup,
        reload: &reload,
    };
    let summary = upkeep.during(|| serve::serve(&device, &blobs, options, stop.as_fd()))?;
    say(&summary.to_string());
    if args.unbind_at_exit {
        unbind(&device)?;
        if let Some(manager) = &manager {
            manager.forget(KEPT);
        }
    }
    Ok(())
}

/// The device, with the cache in service: the one that the service manager has kept, or a new one, which it is given.
fn device(
    args: &Serve,
    volume: &Volume,
    settings: &Settings,
    manager: Option<&Manager>,
) -> Result<Node> {
    if let Some(fd) = notify::kept(KEPT)? {
        let device = Node::from(fd);
        take_back(&device, &args.place.root, volume.dir(), &args.tag, settings)?;
        return Ok(device);
    }
    let device = Node::open(&args.device)?;
    bind(&device, &args.place.root, &args.tag, settings)?;
    if let Some(manager) = manager {
        manager.keep(device.fd(), KEPT);
    }
    Ok(device)
}

/// Prints a line for whoever started the daemon. That nobody reads it is no reason to stop serving.
fn say(line: &str) {
    let mut stdout = std::io::stdout();
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        log!("{line} (standard output: {error})");
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

/// A socket that can be read once SIGHUP has come.
fn hangups() -> Result<UnixStream> {
    let (hangup, sender) = UnixStream::pair()?;
    hangup.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGHUP, sender)?;
    Ok(hangup)
}

fn prefetch(args: &Prefetch) -> Result<()> {
    lock_memory()?;
    let volume = args.place.volume()?;
    let sources = args.sources.required()?;
    let patience = sources.patience();
    let targets = args.targets(&volume, &sources)?;
    let all = targets.len();
    let blobs = Blobs::new(volume, sources, OPEN, IDLE);
    let failed = AtomicUsize::new(0);
    let queue = Queue::new(targets);
    // Those, and no others.
    queue.close();
    let prefetch = prefetch::Prefetch {
        blobs: &blobs,
        gate: &Gate::new(args.rate),
        patience: Some(patience),
        counts: &Counts::default(),
        report: &|target, result| match result {
            Ok(bytes) => say(&format!(
                "{}: fetched {bytes} bytes",
                target.blob.to_string_lossy()
            )),
            // The other blobs may fare better.
            Err(error) => {
                failed.fetch_add(1, Ordering::Relaxed);
                log!("{error:#}");
            }
        },
        queue: &queue,
    };
    let workers = args.workers.into();
    thread::scope(|scope| {
        scope.spawn(|| blobs.mirrors().watch());
        let workers: Vec<_> = (0..workers)
            .map(|_| scope.spawn(|| prefetch.work()))
            .collect();
        let result = workers.into_iter().try_for_each(|worker| {
            let result = worker.join();
            result.unwrap_or_else(|_| Err(anyhow!("a worker panicked")))
        });
        blobs.mirrors().stop();
        result
    })?;
    match failed.into_inner() {
        0 => Ok(()),
        failed => bail!("{failed} of {all} could not be fetched"),
    }
}
