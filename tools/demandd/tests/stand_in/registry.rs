// SPDX-License-Identifier: GPL-2.0
//! A registry, and beside it a server of tokens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use demandd::digest::Digest;

use super::web::{empty, full, Asked, Fault, Web};
use super::Site;

pub struct Registry {
    pub web: Web,
    /// Gives tokens.
    pub tokens: Web,
    pub state: Arc<Mutex<State>>,
}

/// One repository, "team/app".
#[derive(Default)]
pub struct State {
    /// What the server of tokens wants; nothing: everybody gets one that reads.
    pub login: String,
    /// Or what it wants in a form.
    pub identity: String,
    /// The token that is good now, and what for.
    token: String,
    scope: String,
    pub issued: usize,
    /// Without tokens: what the registry itself wants.
    pub basic: Option<String>,
    pub blobs: HashMap<String, Vec<u8>>,
    pub manifests: HashMap<String, Vec<u8>>,
    /// Where blobs are.
    pub elsewhere: Option<String>,
}

impl Registry {
    pub fn new(site: &Site) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let web = Web::new(&site.source_dir(), vec![], Fault::None);
        let tokens = Web::new(&site.source_dir(), vec![], Fault::None);
        let realm = format!("{}token", tokens.url());
        let own = Arc::clone(&state);
        web.guard(move |asked| Some(own.lock().unwrap().answer(asked, &realm)));
        let own = Arc::clone(&state);
        tokens.guard(move |asked| Some(own.lock().unwrap().give(asked)));
        Self { web, tokens, state }
    }

    pub fn place(&self, last: &str) -> String {
        format!("oci://{}/team/app{last} plain-http=true", self.web.address)
    }

    /// No token that was given is good any more.
    pub fn expire(&self) {
        self.state.lock().unwrap().token = "none".to_owned();
    }
}

impl State {
    fn give(&mut self, asked: &Asked) -> Vec<u8> {
        let form = String::from_utf8(asked.body.clone()).unwrap();
        let (target, login) = (asked.target(), asked.value("authorization"));
        assert!(target.starts_with("/token"), "{target}");
        let question = format!("{target}&{form}");
        assert!(question.contains("service=the%20registry"), "{question}");
        let good = match &self.identity[..] {
            "" => login == self.login || self.login.is_empty(),
            identity => {
                asked.method() == "POST" && form.contains(&format!("refresh_token={identity}&"))
            }
        };
        if !good {
            return empty("401 Unauthorized", "");
        }
        let pushes = question.contains("scope=repository%3Ateam%2Fapp%3Apull%2Cpush");
        self.issued += 1;
        self.token = format!("token-{}", self.issued);
        self.scope = if pushes { "pull,push" } else { "pull" }.to_owned();
        let body = format!("{{\"token\": \"{}\", \"expires_in\": 300}}", self.token);
        full(
            "200 OK",
            "Content-Type: application/json\r\n",
            body.as_bytes(),
        )
    }

    fn answer(&mut self, asked: &Asked, realm: &str) -> Vec<u8> {
        let writes = !matches!(asked.method(), "GET" | "HEAD");
        let shown = asked.value("authorization");
        if let Some(basic) = &self.basic {
            if shown != basic {
                return empty(
                    "401 Unauthorized",
                    "WWW-Authenticate: Basic realm=\"x\"\r\n",
                );
            }
        } else if shown != format!("Bearer {}", self.token) || (writes && self.scope == "pull") {
            let scope = if writes { "pull,push" } else { "pull" };
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"the registry\",scope=\"repository:team/app:{scope}\"\r\n"
            );
            return empty("401 Unauthorized", &challenge);
        }
        let path = asked.target().strip_prefix("/v2/team/app/").unwrap();
        let head = |bytes: &[u8]| {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).into_bytes()
        };
        match (asked.method(), path.split_once('/').unwrap()) {
            ("POST", ("blobs", "uploads/")) => empty(
                "202 Accepted",
                "Location: /v2/team/app/blobs/uploads/7?_state=xyzzy\r\n",
            ),
            ("PUT", ("blobs", upload)) => {
                let digest = upload.split_once("&digest=").unwrap().1;
                if Digest::of(&asked.body).to_string() != digest {
                    return empty("400 Bad Request", "");
                }
                self.blobs.insert(digest.to_owned(), asked.body.clone());
                empty("201 Created", "")
            }
            ("PUT", ("manifests", name)) => {
                let text = String::from_utf8(asked.body.clone()).unwrap();
                let digests = text.split("sha256:").skip(1);
                let has = |digits: &str| self.blobs.contains_key(&format!("sha256:{digits}"));
                assert!(
                    digests.map(|rest| &rest[..64]).all(has),
                    "blobs come first: {text}"
                );
                let digest = Digest::of(&asked.body).to_string();
                for name in [name.to_owned(), digest] {
                    self.manifests.insert(name, asked.body.clone());
                }
                empty("201 Created", "")
            }
            (method, ("manifests", name)) => match self.manifests.get(name) {
                Some(bytes) if method == "GET" => full("200 OK", "", bytes),
                _ => empty("404 Not Found", ""),
            },
            (method, (_, digest)) => {
                let Some(bytes) = self.blobs.get(digest) else {
                    return empty("404 Not Found", "");
                };
                if method == "HEAD" {
                    return head(bytes);
                }
                if let Some(elsewhere) = &self.elsewhere {
                    let to = format!("Location: {elsewhere}{digest}?signature=xyzzy\r\n");
                    return empty("307 There", &to);
                }
                send(asked, bytes)
            }
        }
    }
}

/// All of some bytes, or the range that is asked for.
pub fn send(asked: &Asked, bytes: &[u8]) -> Vec<u8> {
    let Some(range) = asked.value("range").strip_prefix("bytes=") else {
        return full("200 OK", "", bytes);
    };
    let (first, last) = range.split_once('-').unwrap();
    let body = &bytes[first.parse().unwrap()..=last.parse().unwrap()];
    let headers = format!("Content-Range: bytes {range}/{}\r\n", bytes.len());
    full("206 Partial Content", &headers, body)
}
