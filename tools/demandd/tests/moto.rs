// SPDX-License-Identifier: GPL-2.0
//! A server of S3 that others use.

mod stand_in;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use demandd::image::build::describe;
use demandd::source::How;
use demandd::store::push;
use stand_in::pushed::{bucket, failure, image, open, push_to, serve, CHUNK, SIZE};
use stand_in::{Site, PATIENCE};

/// Stopped when the test ends.
struct Moto {
    child: Child,
    url: String,
    id: String,
    secret: String,
}

impl Moto {
    fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/moto_server.py");
        let mut child = Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("install python3-moto");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines
            .map_while(Result::ok)
            .find(|line| line.starts_with("http://"))
            .expect("install python3-moto and python3-flask-cors");
        let [url, id, secret] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        Self {
            child,
            url: url.to_owned(),
            id: id.to_owned(),
            secret: secret.to_owned(),
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_image_is_pushed_to_moto_and_read_by_who_has_the_key() {
    let site = Site::new();
    let bytes = image(&site);
    let moto = Moto::start();
    let file = site.path("key");
    let key = |secret: &str| {
        let text = format!(
            "[default]\naws_access_key_id={}\naws_secret_access_key={secret}\n",
            moto.id
        );
        fs::write(&file, text).unwrap();
    };
    let place = format!(
        "s3://bucket/a/b endpoint={} key-file={}",
        moto.url,
        file.display()
    );
    key(&moto.secret);
    assert!(push_to(&site.source_dir(), &place).unwrap().is_empty());
    assert_eq!(push_to(&site.source_dir(), &place).unwrap().len(), 3);
    let daemon = serve(&site, &place);
    assert_eq!(daemon.ask(1, 4096, SIZE - 4096, "Da.img"), "done 1\n");
    assert_eq!(daemon.ask(2, 0, 4096, "Da.img"), "done 2\n");
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    daemon.end();
    key("other");
    let text = format!("{:#}", push_to(&site.source_dir(), &place).unwrap_err());
    assert!(
        text.contains("403") && text.contains("without a reason"),
        "{text}"
    );
    let text = format!("{:#}", failure(&place).error);
    assert!(
        text.contains("403") && text.contains("the secret key"),
        "{text}"
    );
}

#[test]
fn a_large_file_goes_to_moto_in_parts() {
    let site = Site::new();
    // S3 takes no part of less than 5 MiB but the last one.
    let size = (11 << 20) + 1;
    let bytes = site.blob("large.img", size);
    describe(
        &site.source_dir(),
        "large",
        &["large.img".to_owned()],
        CHUNK,
    )
    .unwrap();
    let moto = Moto::start();
    let file = site.path("key");
    let text = format!(
        "aws_access_key_id={}\naws_secret_access_key={}\n",
        moto.id, moto.secret
    );
    fs::write(&file, text).unwrap();
    let store = bucket("s3://bucket/large", &moto.url, &file, 5 << 20);
    let had = |had: &mut Vec<bool>| {
        let tell = |_: &_, there| {
            had.push(there);
            Ok(())
        };
        push(&site.source_dir(), "large", &store, tell).unwrap();
    };
    let mut there = Vec::new();
    had(&mut there);
    had(&mut there);
    assert_eq!(there, [false, false, false, true, true, true]);
    let place = format!(
        "s3://bucket/large endpoint={} key-file={}",
        moto.url,
        file.display()
    );
    let source = open(&place);
    let blob = source.blob("large.img".as_ref(), size).unwrap();
    let mut got = vec![0; bytes.len()];
    let how = How {
        until: Instant::now() + PATIENCE,
        fresh: false,
    };
    blob.range(0..size, &how)
        .unwrap()
        .read_exact(&mut got)
        .unwrap();
    assert!(got == bytes);
}
