// SPDX-License-Identifier: GPL-2.0
//! A server that speaks as much S3 as objects take, and looks at signatures. What it knows of these is from the reference,
//! not from the daemon.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ring::digest::{digest, SHA256};
use ring::hmac;

use super::web::{empty, full, Asked, Fault, Web};
use super::Site;

pub const ID: &str = "AKSTANDIN";

/// One bucket, of the name "bucket".
pub struct S3 {
    pub web: Web,
    pub state: Arc<Mutex<State>>,
}

pub struct State {
    /// The secret key; without one, everybody may read.
    pub secret: Option<String>,
    /// The token that has to come with the key.
    pub session: String,
    pub region: String,
    /// How far its clock is ahead.
    pub ahead: Duration,
    /// Objects: bytes, and the digest that came with them.
    pub objects: HashMap<String, (Vec<u8>, String)>,
    /// Objects that come in parts, by the name of the upload: what they will be, their digests, and parts.
    pub uploads: HashMap<String, Upload>,
    /// Where a target has such a text: what is answered once, and whether that is done which was asked for.
    pub surprises: Vec<(&'static str, Vec<u8>, bool)>,
}

#[derive(Default)]
pub struct Upload {
    name: String,
    digest: String,
    parts: BTreeMap<usize, Vec<u8>>,
}

impl S3 {
    pub fn new(site: &Site, secret: Option<&str>) -> Self {
        let state = Arc::new(Mutex::new(State {
            secret: secret.map(str::to_owned),
            session: String::new(),
            region: "us-east-1".to_owned(),
            ahead: Duration::ZERO,
            objects: HashMap::new(),
            uploads: HashMap::new(),
            surprises: Vec::new(),
        }));
        let web = Web::new(&site.source_dir(), vec![], Fault::None);
        let own = Arc::clone(&state);
        web.guard(move |asked| Some(own.lock().unwrap().answer(asked)));
        Self { web, state }
    }

    pub fn place(&self, more: &str) -> String {
        format!("s3://bucket/p endpoint=http://{} {more}", self.web.address)
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<Vec<_>>().concat()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

/// The part of a text between two others.
fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split(end).next().unwrap())
}

fn error(status: &str, code: &str, headers: &str) -> Vec<u8> {
    let xml = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>in words</Message></Error>"
    );
    full(status, headers, xml.as_bytes())
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Vec<u8> {
        if let Some(refusal) = self.refusal(asked) {
            return refusal;
        }
        let is_meant = |(text, _, _): &(&str, _, _)| asked.target().contains(text);
        if let Some(at) = self.surprises.iter().position(is_meant) {
            let (_, answer, is_done) = self.surprises.remove(at);
            if is_done {
                self.answer(asked);
            }
            return answer;
        }
        let (path, query) = asked
            .target()
            .split_once('?')
            .unwrap_or((asked.target(), ""));
        let Some(name) = path.strip_prefix("/bucket/p/") else {
            return error("404 Not Found", "NoSuchBucket", "");
        };
        if !query.is_empty() {
            return self.upload(asked, name, query);
        }
        if asked.method() == "PUT" {
            let digest = asked.value("x-amz-meta-sha256").to_owned();
            self.objects
                .insert(name.to_owned(), (asked.body.clone(), digest));
            return empty("200 OK", "ETag: \"x\"\r\n");
        }
        let Some((bytes, digest)) = self.objects.get(name) else {
            return match asked.method() {
                "HEAD" => empty("404 Not Found", ""),
                _ => error("404 Not Found", "NoSuchKey", ""),
            };
        };
        let size = bytes.len();
        let range = asked.value("range").strip_prefix("bytes=");
        match (asked.method(), range) {
            ("HEAD", _) => format!(
                "HTTP/1.1 200 OK\r\nx-amz-meta-sha256: {digest}\r\nContent-Length: {size}\r\n\r\n"
            )
            .into_bytes(),
            (_, None) => full("200 OK", "", bytes),
            (_, Some(range)) => {
                let (first, last) = range.split_once('-').unwrap();
                let body = &bytes[first.parse().unwrap()..=last.parse().unwrap()];
                let headers = format!("Content-Range: bytes {range}/{size}\r\n");
                full("206 Partial Content", &headers, body)
            }
        }
    }

    /// A part of an object, its beginning or its end.
    fn upload(&mut self, asked: &Asked, name: &str, query: &str) -> Vec<u8> {
        let parameters: HashMap<_, _> = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap())
            .collect();
        if parameters.contains_key("uploads") {
            // A name as Amazon's are: not only letters and digits.
            let id = format!("a._-{}", self.uploads.len());
            let upload = Upload {
                name: name.to_owned(),
                digest: asked.value("x-amz-meta-sha256").to_owned(),
                ..Upload::default()
            };
            let xml = format!("<R><Key>{name}</Key><UploadId>{id}</UploadId></R>");
            self.uploads.insert(id, upload);
            return full("200 OK", "", xml.as_bytes());
        }
        let id = parameters["uploadId"];
        let Some(upload) = self.uploads.get_mut(id) else {
            return error("404 Not Found", "NoSuchUpload", "");
        };
        assert_eq!(upload.name, name);
        match asked.method() {
            "PUT" => {
                let number = parameters["partNumber"].parse().unwrap();
                let tag = format!("ETag: \"{}\"\r\n", sha256(&asked.body));
                upload.parts.insert(number, asked.body.clone());
                empty("200 OK", &tag)
            }
            "POST" => {
                let part = |(number, bytes): (&usize, &Vec<u8>)| {
                    let tag = sha256(bytes);
                    format!("<Part><PartNumber>{number}</PartNumber><ETag>\"{tag}\"</ETag></Part>")
                };
                let parts = upload.parts.iter().map(part).collect::<String>();
                let wanted = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
                assert_eq!(String::from_utf8_lossy(&asked.body), wanted);
                let bytes: Vec<u8> = upload.parts.values().flatten().copied().collect();
                let object = (bytes, upload.digest.clone());
                self.objects.insert(name.to_owned(), object);
                self.uploads.remove(id);
                full("200 OK", "", b"<R><ETag>x</ETag></R>")
            }
            "DELETE" => {
                self.uploads.remove(id);
                empty("204 No Content", "")
            }
            method => panic!("{method}"),
        }
    }

    fn refusal(&self, asked: &Asked) -> Option<Vec<u8>> {
        let denied = |code| Some(error("403 Forbidden", code, ""));
        let shown = asked.value("authorization");
        let Some(secret) = &self.secret else {
            assert_eq!(shown, "");
            return None;
        };
        if shown.is_empty() {
            return denied("AccessDenied");
        }
        let now = SystemTime::now() + self.ahead;
        let date = format!("Date: {}\r\n", httpdate::fmt_http_date(now));
        let credential = between(shown, "Credential=", ",").unwrap();
        let [id, day, region, service, end] = credential.split('/').collect::<Vec<_>>()[..] else {
            panic!("{credential}");
        };
        assert_eq!((service, end), ("s3", "aws4_request"));
        if id != ID {
            return denied("InvalidAccessKeyId");
        }
        if region != self.region {
            let headers = format!("x-amz-bucket-region: {}\r\n", self.region);
            return Some(error(
                "400 Bad Request",
                "AuthorizationHeaderMalformed",
                &headers,
            ));
        }
        let time = asked.value("x-amz-date");
        assert!(time.starts_with(day) && time.len() == 16, "{time}");
        if self.ahead > Duration::from_secs(900) {
            return Some(error("403 Forbidden", "RequestTimeTooSkewed", &date));
        }
        if asked.value("x-amz-security-token") != self.session {
            return Some(error("400 Bad Request", "ExpiredToken", ""));
        }
        let names = between(shown, "SignedHeaders=", ",").unwrap();
        for line in &asked.headers {
            let (name, _) = line.split_once(": ").unwrap();
            let is_signed = names.split(';').any(|signed| signed == name);
            assert!(
                is_signed || !name.starts_with("x-amz-") && name != "host",
                "{line}"
            );
        }
        let (path, query) = asked
            .target()
            .split_once('?')
            .unwrap_or((asked.target(), ""));
        let mut text = format!("{}\n{path}\n{query}\n", asked.method());
        for name in names.split(';') {
            text += &format!("{name}:{}\n", asked.value(name));
        }
        let payload = asked.value("x-amz-content-sha256");
        text += &format!("\n{names}\n{payload}");
        let scope = format!("{day}/{region}/s3/aws4_request");
        let text = format!(
            "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
            sha256(text.as_bytes())
        );
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in scope.split('/') {
            key = hmac(&key, part);
        }
        if between(shown, "Signature=", ",").unwrap() != hex(&hmac(&key, &text)) {
            return denied("SignatureDoesNotMatch");
        }
        if payload != sha256(&asked.body) {
            return Some(error("400 Bad Request", "XAmzContentSHA256Mismatch", ""));
        }
        None
    }
}
