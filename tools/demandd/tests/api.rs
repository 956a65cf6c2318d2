// SPDX-License-Identifier: GPL-2.0
//! What the daemon answers on its socket, and the numbers for Prometheus.

mod stand_in;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use demandd::counts::Counts;
use demandd::kernel::Kernel;
use demandd::metrics;
use rustix::process::Signal;
use serde_json::{json, Value};
use stand_in::process::{str, Daemon};
use stand_in::{record, Site, Terminal, PATIENCE};

/// A daemon with a socket, and one blob.
fn start(site: &Site, device: &Terminal) -> (Daemon, PathBuf) {
    site.blob("a.img", 8192);
    let socket = site.path("api");
    let mut daemon = Daemon::start(site, device, &["--api", str(&socket)]);
    device.expect_bind(&site.root(), "CacheFiles");
    assert_eq!(daemon.line(), "demandd: ready\n");
    (daemon, socket)
}

/// Sends bytes; returns status and body of the answer.
fn send(socket: &Path, bytes: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = format!("Content-Length: {}\r\n", body.len());
    assert!(head.contains(&length), "{answer}");
    let status = head.strip_prefix("HTTP/1.1 ").unwrap();
    (status[..3].parse().unwrap(), body.to_owned())
}

fn ask(socket: &Path, method: &str, path: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    send(socket, request.as_bytes())
}

fn ask_json(socket: &Path, method: &str, path: &str) -> (u16, Value) {
    let (status, body) = ask(socket, method, path);
    (status, serde_json::from_str(&body).unwrap())
}

#[test]
fn health_and_progress() {
    let site = Site::new();
    let mut device = Terminal::new();
    let (mut daemon, socket) = start(&site, &device);
    device.send(&record(1, 0, 4096, b"Da.img"));
    assert_eq!(device.command(), "done 1");
    device.send(&record(2, 0, 4096, b"Dabsent"));
    assert_eq!(device.command(), "fail 2 5");
    let (status, health) = ask_json(&socket, "GET", "/v1/health");
    assert_eq!(status, 200);
    assert_eq!(
        health,
        json!({
            "status": "serving",
            "version": env!("CARGO_PKG_VERSION"),
            "served": 1,
            "bytes": 4096,
            "failed": 1,
            "in_flight": 0,
            "open_blobs": 1,
        })
    );
    let row = json!({ "name": "a.img", "size": 8192, "present": 4096, "percent": 50 });
    let (_, blobs) = ask_json(&socket, "GET", "/v1/blobs");
    assert_eq!(blobs["blobs"], json!([row]));
    assert_eq!(blobs["total"]["present"], 4096);
    assert_eq!(ask_json(&socket, "GET", "/v1/blobs/a%2eimg"), (200, row));
    assert_eq!(ask(&socket, "GET", "/v1/blobs/b.img").0, 404);
    let (status, metrics) = ask(&socket, "GET", "/metrics");
    assert_eq!(status, 200);
    assert!(
        metrics.contains("\ndemandd_bytes_total 4096\n"),
        "{metrics}"
    );
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0);
}

#[test]
fn a_blob_is_removed_by_the_kernel() {
    let site = Site::new();
    let device = Terminal::new();
    let (mut daemon, socket) = start(&site, &device);
    let (status, told) = ask_json(&socket, "DELETE", "/v1/blobs/a.img");
    assert_eq!((status, &told), (200, &json!({ "evicted": "a.img" })));
    assert_eq!(device.command(), "cull Da.img");
    for (name, status) in [("b.img", 404), ("..%2fa.img", 404), ("%2", 404), ("", 404)] {
        let path = format!("/v1/blobs/{name}");
        assert_eq!(ask(&socket, "DELETE", &path).0, status, "{name}");
    }
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0);
}

#[test]
fn a_blob_or_a_range_of_it_is_prefetched() {
    let site = Site::new();
    let device = Terminal::new();
    let bytes = site.blob("b.img", 1 << 20);
    let (mut daemon, socket) = start(&site, &device);
    let queued = (202, json!({ "queued": "b.img" }));
    let path = "/v1/blobs/b.img/prefetch?off=8192&len=4096";
    assert_eq!(ask_json(&socket, "POST", path), queued);
    let done = |bytes: u64| json!({ "blob": null, "waiting": 0, "bytes": bytes });
    let wait_for = |bytes| {
        let began = Instant::now();
        while ask_json(&socket, "GET", "/v1/prefetch") != (200, done(bytes)) {
            assert!(began.elapsed() < PATIENCE);
        }
    };
    wait_for(4096);
    assert_eq!(site.missing("b.img"), (1 << 20) - 4096);
    assert_eq!(
        ask_json(&socket, "POST", "/v1/blobs/b%2eimg/prefetch"),
        queued
    );
    wait_for(1 << 20);
    assert_eq!(site.cached("b.img", 0, 1 << 20), bytes);
    let forgotten = (200, json!({ "forgotten": 0 }));
    assert_eq!(ask_json(&socket, "DELETE", "/v1/prefetch"), forgotten);
    for (method, path, status) in [
        ("POST", "/v1/blobs/absent/prefetch", 404),
        ("POST", "/v1/blobs//prefetch", 404),
        ("POST", "/v1/blobs/b.img/fetch", 404),
        ("POST", "/v1/blobs/b.img/prefetch/", 404),
        ("GET", "/v1/blobs/b.img/prefetch", 405),
        ("POST", "/v1/blobs/b.img/prefetch?off=0", 400),
        ("POST", "/v1/blobs/b.img/prefetch?off=0&len=-1", 400),
        (
            "POST",
            "/v1/blobs/b.img/prefetch?off=1&len=18446744073709551615",
            400,
        ),
        ("POST", "/v1/blobs/b.img/prefetch?all", 400),
    ] {
        assert_eq!(ask(&socket, method, path).0, status, "{path}");
    }
    // One that ends behind the blob is refused later, in the log.
    let path = "/v1/blobs/b.img/prefetch?off=0&len=1048577";
    assert_eq!(ask_json(&socket, "POST", path), queued);
    wait_for(1 << 20);
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0);
}

#[test]
fn reloading_tells_what_has_changed() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let device = Terminal::new();
    let (config, socket) = (site.path("config"), site.path("api"));
    fs::write(&config, "linger = 5").unwrap();
    let options = ["--api", str(&socket), "--config", str(&config)];
    let mut daemon = Daemon::start(&site, &device, &options);
    device.expect_bind(&site.root(), "CacheFiles");
    assert_eq!(device.command(), "linger 5");
    assert_eq!(daemon.line(), "demandd: ready\n");
    fs::write(&config, "linger = 6").unwrap();
    let (status, told) = ask_json(&socket, "POST", "/v1/reload");
    assert_eq!((status, told), (200, json!({ "changed": ["linger"] })));
    assert_eq!(device.command(), "linger 6");
    fs::write(&config, "colour = 6").unwrap();
    let (status, told) = ask(&socket, "POST", "/v1/reload");
    assert!(status == 500 && told.contains("colour"), "{told}");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0);
}

#[test]
fn what_makes_no_sense_does_no_harm() {
    let site = Site::new();
    let device = Terminal::new();
    let (mut daemon, socket) = start(&site, &device);
    for (bytes, status) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 404),
        (b"POST /v1/health HTTP/1.1\r\n\r\n".to_vec(), 404),
        (b"PUT /v1/blobs/a.img HTTP/1.1\r\n\r\n".to_vec(), 405),
        (b"\0\0\0\r\n\r\n".to_vec(), 400),
        (vec![b'A'; 20_000], 400),
        (
            [b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(100)].concat(),
            400,
        ),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..20.min(bytes.len())]).into_owned();
        // Whoever sends too much may find that nobody listens any more.
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(&bytes);
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *format!("HTTP/1.1 {status}").as_bytes(), "{shown}");
    }
    // One that says nothing holds up the others for a while only.
    let silent = UnixStream::connect(&socket).unwrap();
    assert_eq!(ask(&socket, "GET", "/v1/health").0, 200);
    drop(silent);
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0);
}

#[test]
fn the_socket_is_for_its_owner_and_for_one_daemon() {
    let site = Site::new();
    let device = Terminal::new();
    let (mut daemon, socket) = start(&site, &device);
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700 & mode, "{mode:o}");
    let mut second = Daemon::spawn(Daemon::command(&site, &device).args(["--api", str(&socket)]));
    assert!(!second.end().0, "it has the socket of the first");
    daemon.signal(Signal::KILL);
    assert!(!daemon.end().0);
    // What a daemon that died has left behind is in nobody's way.
    device.reset();
    let mut third = Daemon::start(&site, &device, &["--api", str(&socket)]);
    device.expect_bind(&site.root(), "CacheFiles");
    assert_eq!(third.line(), "demandd: ready\n");
    assert_eq!(ask(&socket, "GET", "/v1/health").0, 200);
    third.signal(Signal::TERM);
    assert!(third.end().0);
}

#[test]
fn metrics_of_the_daemon_and_of_the_kernel() {
    let site = Site::new();
    let tables = site.path("kernel");
    fs::create_dir(&tables).unwrap();
    let caches = "daemon objects oldest_ms hung tag\nconnected 2 1500 3 a\"b\nlingering 0 0 0 c\n";
    fs::write(tables.join("caches"), caches).unwrap();
    let objects = "present_blocks hits tag/name\n3 17 c/Dx\n";
    fs::write(tables.join("objects"), objects).unwrap();
    fs::write(tables.join("requests"), "id tag/name\n").unwrap();
    let counts = Counts::default();
    for millis in [0, 1, 2, 100, 101, 40_000] {
        counts.begin();
        counts.end(Duration::from_millis(millis));
        counts.served(4096);
    }
    counts.begin();
    counts.failed();
    counts.prefetched(1000);
    counts.culled(100);
    counts.culled(200);
    let text = metrics::text(&counts, Some(8192), &Kernel::read(&tables));
    // A name is shown as everywhere, a"b as a\"b, and that is a label's text.
    for line in [
        "# TYPE demandd_requests_total counter",
        "demandd_requests_total{result=\"done\"} 6",
        "demandd_requests_total{result=\"failed\"} 1",
        "demandd_bytes_total 24576",
        "demandd_requests_in_flight 1",
        "demandd_prefetched_bytes_total 1000",
        "demandd_culled_blobs_total 2",
        "demandd_culled_bytes_total 300",
        "demandd_cache_bytes 8192",
        "demandd_request_seconds_bucket{le=\"0.001\"} 2",
        "demandd_request_seconds_bucket{le=\"0.003\"} 3",
        "demandd_request_seconds_bucket{le=\"0.1\"} 4",
        "demandd_request_seconds_bucket{le=\"0.3\"} 5",
        "demandd_request_seconds_bucket{le=\"30\"} 5",
        "demandd_request_seconds_bucket{le=\"+Inf\"} 6",
        "demandd_request_seconds_sum 40.204",
        "demandd_request_seconds_count 6",
        "# TYPE cachefiles_demand_cache_hung_requests_total counter",
        "cachefiles_demand_cache_hung_requests_total{tag=\"a\\\\\\\"b\"} 3",
        "cachefiles_demand_cache_hung_requests_total{tag=\"c\"} 0",
        "cachefiles_demand_cache_oldest_request_seconds{tag=\"a\\\\\\\"b\"} 1.5",
        "cachefiles_demand_blob_present_bytes{name=\"c/Dx\"} 12288",
        "cachefiles_demand_blob_hits_total{name=\"c/Dx\"} 17",
    ] {
        assert!(text.lines().any(|have| have == line), "{line}: {text}");
    }
    // Each name has one type, before its values.
    let types: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .collect();
    let mut once = types.clone();
    once.sort();
    once.dedup();
    assert_eq!(types.len(), once.len(), "{text}");
}
