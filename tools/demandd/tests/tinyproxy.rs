// SPDX-License-Identifier: GPL-2.0
//! A proxy that others use.

mod stand_in;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use demandd::source::http::Options;
use demandd::source::place::Place;
use stand_in::web::{Fault, Web};
use stand_in::{Site, PATIENCE};

/// Stopped when the test ends.
struct Proxy {
    child: Child,
    port: u16,
}

impl Proxy {
    /// Starts one that wants a password.
    fn start(site: &Site, login: &str) -> Self {
        // The port is free now; nobody else is expected to want one meanwhile.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let config = site.path("tinyproxy");
        let text = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nBasicAuth {login}\nLogLevel Error\n"
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("tinyproxy")
            .arg("-d")
            .arg("-c")
            .arg(config)
            .stdout(Stdio::null())
            .spawn()
            .expect("install tinyproxy-bin");
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "tinyproxy does not start");
            thread::sleep(Duration::from_millis(10));
        }
        Self { child, port }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_file_comes_through_tinyproxy_for_who_knows_the_password() {
    let site = Site::new();
    let bytes = site.blob("file", 50_000);
    let web = Web::new(&site.source_dir(), vec![], Fault::None);
    let proxy = Proxy::start(&site, "reader sesame");
    let file = site.path("password");
    let place = format!(
        "{} proxy=http://127.0.0.1:{} proxy-password-file={}",
        web.url(),
        proxy.port,
        file.display()
    );
    let get = |login: &str| {
        fs::write(&file, login).unwrap();
        let options = Options {
            silence: Duration::from_secs(10),
            proxy: None,
            proxy_password_file: None,
            ca_file: None,
        };
        let source = Place::parse(place.as_ref())
            .unwrap()
            .open(&options)
            .unwrap();
        source.file("file", 100_000, Instant::now() + Duration::from_secs(30))
    };
    assert_eq!(get("reader:sesame").unwrap(), bytes);
    assert_eq!(web.asked().len(), 1);
    let failure = get("reader:other").unwrap_err();
    assert!(
        format!("{:#}", failure.error).contains("401"),
        "{:#}",
        failure.error
    );
    assert_eq!(web.asked().len(), 1);
}
