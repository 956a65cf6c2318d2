// SPDX-License-Identifier: GPL-2.0
//! A registry that others use: that of the distribution project, Debian's package docker-registry.

mod stand_in;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use stand_in::pushed::{failure, image, push_to, serve, SIZE};
use stand_in::{Site, PATIENCE};

/// A test vector of crypt_blowfish: the hash of the password "U*U".
const HASH: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// Stopped when the test ends.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    /// Starts one, perhaps for one user only.
    fn start(site: &Site, users: bool) -> Self {
        // The port is free now; nobody else is expected to want one meanwhile.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let dir = site.path("registry");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("users"), format!("reader:{HASH}\n")).unwrap();
        let dir = dir.display();
        let auth = match users {
            true => format!("auth:\n  htpasswd:\n    realm: all\n    path: {dir}/users\n"),
            false => String::new(),
        };
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {dir}\n\
             http:\n  addr: 127.0.0.1:{port}\n  secret: any\n{auth}"
        );
        let file = site.path("registry.yml");
        fs::write(&file, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("install docker-registry");
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "docker-registry does not start");
            thread::sleep(Duration::from_millis(10));
        }
        Self { child, port }
    }

    fn place(&self, more: &str) -> String {
        format!(
            "oci://127.0.0.1:{}/team/app:1 plain-http=true {more}",
            self.port
        )
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn check(site: &Site, bytes: &[u8], place: &str) {
    assert!(push_to(&site.source_dir(), place).unwrap().is_empty());
    assert_eq!(push_to(&site.source_dir(), place).unwrap().len(), 3);
    let daemon = serve(site, place);
    assert_eq!(daemon.ask(1, 4096, SIZE - 4096, "Da.img"), "done 1\n");
    assert_eq!(daemon.ask(2, 0, 4096, "Da.img"), "done 2\n");
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    daemon.end();
}

#[test]
fn an_image_is_pushed_to_a_registry_and_read() {
    let site = Site::new();
    let bytes = image(&site);
    let registry = Registry::start(&site, false);
    check(&site, &bytes, &registry.place(""));
}

#[test]
fn a_registry_that_wants_a_password_gets_it() {
    let site = Site::new();
    let bytes = image(&site);
    let registry = Registry::start(&site, true);
    let file = site.path("auth.json");
    let write = |password: &str| {
        let entry = format!("{{\"username\": \"reader\", \"password\": \"{password}\"}}");
        let text = format!(
            "{{\"auths\": {{\"127.0.0.1:{}\": {entry}}}}}",
            registry.port
        );
        fs::write(&file, text).unwrap();
    };
    write("U*U");
    let place = registry.place(&format!("auth-file={}", file.display()));
    check(&site, &bytes, &place);
    write("other");
    let text = format!("{:#}", failure(&place).error);
    assert!(
        text.contains("401") && text.contains("does not take"),
        "{text}"
    );
}
