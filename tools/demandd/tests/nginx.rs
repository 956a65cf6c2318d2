// SPDX-License-Identifier: GPL-2.0
//! A web server that others use.

mod stand_in;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use stand_in::{Site, PATIENCE};

/// A server of a site's source; stopped when the test ends.
struct Nginx {
    child: Child,
    url: String,
}

impl Nginx {
    /// With more about the server, and about everything.
    fn start(site: &Site, server: &str, more: &str) -> Self {
        // The port is free now; nobody else is expected to want one meanwhile.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let dir = site.path("nginx");
        fs::create_dir(&dir).unwrap();
        let config = format!(
            "daemon off; master_process off; error_log stderr; pid {dir}/pid;
            events {{ }}
            http {{
                access_log {dir}/access.log;
                client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
                fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
                {more}
                server {{ listen 127.0.0.1:{port}; root {source}; {server} }}
            }}",
            dir = dir.display(),
            source = site.source_dir().display(),
        );
        fs::write(dir.join("config"), config).unwrap();
        let child = Command::new("nginx")
            .arg("-c")
            .arg(dir.join("config"))
            .spawn()
            .expect("install nginx");
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "nginx does not start");
            thread::sleep(Duration::from_millis(10));
        }
        let url = format!("http://127.0.0.1:{port}");
        Self { child, url }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(site: &Site, verb: &str, url: &str, more: &[&str]) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_demandd"))
        .args([verb, "--root"])
        .arg(site.root())
        .args(["--proxy=none", "--source", url])
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8([stdout, stderr].concat()).unwrap();
    (status.success(), text)
}

/// An image in the source; the names of its blobs.
fn image(site: &Site) -> [&'static str; 2] {
    fs::create_dir(site.path("tree")).unwrap();
    fs::write(site.path("tree/file"), site.blob("x", 3_000_000)).unwrap();
    fs::remove_dir_all(site.root()).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_demandd"))
        .args(["image", "build", "--name=app", "--into"])
        .args([site.source_dir(), site.path("tree")])
        .status();
    assert!(status.unwrap().success());
    ["app.img", "app.blob"]
}

fn check(site: &Site, blobs: [&str; 2]) {
    for name in blobs {
        let right = fs::read(site.source_dir().join(name)).unwrap();
        assert!(site.cached(name, 0, right.len()) == right, "{name}");
        assert_eq!(site.missing(name), 0);
    }
}

#[test]
fn an_image_comes_from_nginx() {
    let site = Site::new();
    let blobs = image(&site);
    let nginx = Nginx::start(&site, "", "");
    let (ok, text) = run(&site, "prepare", &nginx.url, &["--image=app"]);
    assert!(ok, "{text}");
    let (ok, text) = run(
        &site,
        "prefetch",
        &nginx.url,
        &["app.blob:1000000+1", "--", "app.img"],
    );
    assert!(ok, "{text}");
    let (ok, text) = run(&site, "prefetch", &nginx.url, &["--all"]);
    assert!(ok, "{text}");
    check(&site, blobs);
    let log = fs::read_to_string(site.path("nginx/access.log")).unwrap();
    assert!(log.contains("\"GET /app.blob HTTP/1.1\" 206 "), "{log}");
}

#[test]
fn an_nginx_that_limits_requests_is_waited_for() {
    let site = Site::new();
    let blobs = image(&site);
    let limit = "limit_req_zone $server_port zone=all:1m rate=5r/s; limit_req_status 429;";
    let nginx = Nginx::start(&site, "limit_req zone=all;", limit);
    let (ok, text) = run(&site, "prepare", &nginx.url, &["--image=app"]);
    assert!(ok, "{text}");
    let (ok, text) = run(&site, "prefetch", &nginx.url, &["--all", "--workers=1"]);
    assert!(ok, "{text}");
    check(&site, blobs);
    let log = fs::read_to_string(site.path("nginx/access.log")).unwrap();
    assert!(log.contains("\" 429 "), "{log}");
}

#[test]
fn an_nginx_that_wants_a_password_gets_it() {
    let site = Site::new();
    let blobs = image(&site);
    let users = site.path("users");
    fs::write(&users, "reader:{PLAIN}open sesame\n").unwrap();
    let server = format!("auth_basic all; auth_basic_user_file {};", users.display());
    let nginx = Nginx::start(&site, &server, "");
    let file = site.path("password");
    let source = format!("{} password-file={}", nginx.url, file.display());
    fs::write(&file, "reader:close sesame\n").unwrap();
    let (ok, text) = run(&site, "prepare", &source, &["--image=app"]);
    assert!(!ok && text.contains("401 Unauthorized"), "{text}");
    assert!(
        text.contains(file.to_str().unwrap()) && !text.contains("sesame"),
        "{text}"
    );
    fs::write(&file, "reader:open sesame\n").unwrap();
    let (ok, text) = run(&site, "prepare", &source, &["--image=app"]);
    assert!(ok, "{text}");
    let (ok, text) = run(&site, "prefetch", &source, &["--all"]);
    assert!(ok, "{text}");
    check(&site, blobs);
}
