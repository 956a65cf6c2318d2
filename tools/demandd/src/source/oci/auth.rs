// SPDX-License-Identifier: GPL-2.0
//! Who asks a registry: a user and a password, from a file as `docker login` makes it or from a program that this names,
//! or a token that is got with these.
//!
//! A registry that answers 401 says what it wants (RFC 7235): "Basic", or "Bearer" with the address of a server that gives
//! tokens (the token authentication of the distribution project). A token is kept until it is refused.

use std::ffi::OsStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{anyhow, Result};
use serde_json::Value;
use ureq::http::{header, HeaderValue, Method, StatusCode, Uri};

use super::helper;
use super::logins::{Known, Logins, Whereabouts};
use crate::log;
use crate::source::http::access::{Access, Refusal, Refused, Shown, Verdict};
use crate::source::http::client::{Ask, Client, Payload};
use crate::source::http::escape;
use crate::source::http::secret::{bearer, Secret, SecretFile};
use crate::source::http::session::{Answer, Origin};
use crate::source::Failure;

/// The largest answer with a token in bytes.
const ANSWER_MAX: u64 = 1 << 20;

/// What a registry wants to see.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    pairs: Vec<(String, String)>,
}

impl Challenge {
    /// Reads the values of `WWW-Authenticate`.
    fn parse<'v>(values: impl Iterator<Item = &'v HeaderValue>) -> Vec<Self> {
        let mut all = Vec::new();
        for value in values {
            let mut rest = value.to_str().unwrap_or_default();
            while let Some(challenge) = Self::next(&mut rest, &mut all) {
                all.push(challenge);
            }
        }
        all
    }

    /// Takes the next word: a scheme begins a challenge, a pair belongs to the last one.
    fn next(rest: &mut &str, all: &mut [Self]) -> Option<Self> {
        loop {
            *rest = rest.trim_start_matches([',', ' ', '\t']);
            let end = rest.find(['=', ' ', ',']).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            if word.is_empty() {
                return None;
            }
            let Some(value) = behind.strip_prefix('=') else {
                *rest = behind;
                return Some(Self {
                    scheme: word.to_ascii_lowercase(),
                    pairs: Vec::new(),
                });
            };
            let (value, behind) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => value.split_at(value.find([',', ' ']).unwrap_or(value.len())),
            };
            *rest = behind;
            if let Some(last) = all.last_mut() {
                let pair = (word.to_ascii_lowercase(), value.to_owned());
                last.pairs.push(pair);
            }
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(have, _)| have == key);
        found.map(|(_, value)| &value[..])
    }
}

/// Shows a registry who asks.
#[derive(Debug)]
pub struct Registry {
    /// Host and name, as files may know it.
    repository: String,
    file: Option<SecretFile<Logins>>,
    state: Mutex<State>,
}

/// Who asks.
struct Asker {
    known: Option<Known>,
    /// For people.
    told: String,
}

#[derive(Debug, Default)]
struct State {
    stamp: u64,
    shown: Option<Secret>,
}

impl Registry {
    /// For a repository, with what a file knows of it.
    pub fn new(repository: String, file: Option<SecretFile<Logins>>) -> Self {
        Self {
            repository,
            file,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who asks now. A program that fails is no reason not to ask as nobody: many images are public.
    fn asker(&self, until: Instant) -> Asker {
        let Some(file) = &self.file else {
            return Asker {
                known: None,
                told: "nobody (see auth-file)".to_owned(),
            };
        };
        let path = file.path().display();
        let (known, told) = match file.get().1.of(&self.repository) {
            None => {
                let repository = &self.repository;
                (
                    None,
                    format!("nobody, and {path} has nothing for {repository}"),
                )
            }
            Some(Whereabouts::Here(known)) => (Some(known), format!("what is in {path}")),
            Some(Whereabouts::Helper { name, server }) => {
                let program = format!("docker-credential-{name}");
                match helper::ask(&name, &server, until) {
                    Ok(Some(known)) => (Some(known), format!("what {program} has for {server}")),
                    Ok(None) => (
                        None,
                        format!("nobody, and {program} has nothing for {server}"),
                    ),
                    Err(error) => (None, format!("nobody, since {error:#}")),
                }
            }
        };
        Asker { known, told }
    }

    /// Gets a token. A refusal is told as such.
    fn token(
        &self,
        challenge: &Challenge,
        asker: &Asker,
        (client, home, until): (&Client, &Origin, Instant),
    ) -> Result<Result<Secret, String>, Failure> {
        let realm = challenge.get("realm").unwrap_or_default();
        let uri: Uri = realm
            .parse()
            .map_err(|_| Failure::lasting(anyhow!("who gives tokens has no address")))?;
        let origin = Origin::of(&uri);
        let host = uri.host().unwrap_or_default();
        if home.is_private() && !origin.is_private() {
            let error =
                anyhow!("tokens from {host} would go over http://, where all can read them");
            return Err(Failure::lasting(error));
        }
        let mut query = String::new();
        let service = challenge.get("service").map(|service| ("service", service));
        let scopes = challenge.get("scope").unwrap_or_default().split(' ');
        let scopes = scopes.filter(|scope| !scope.is_empty());
        for (key, value) in service
            .into_iter()
            .chain(scopes.map(|scope| ("scope", scope)))
        {
            query += &format!("&{key}={}", escape(OsStr::new(value)));
        }
        let form;
        let mut headers = Vec::new();
        let mut ask = Ask::get("");
        let url = match &asker.known {
            Some(Known::Identity(token)) => {
                let token = escape(OsStr::new(token.reveal()));
                form = format!(
                    "grant_type=refresh_token&client_id=demandd&refresh_token={token}{query}"
                );
                ask.method = Method::POST;
                ask.payload = Payload::Bytes(form.as_bytes());
                ask.headers
                    .push((header::CONTENT_TYPE, "application/x-www-form-urlencoded"));
                realm.to_owned()
            }
            known => {
                if let Some(Known::Login(login)) = known {
                    let shown = Shown {
                        stamp: 0,
                        headers: vec![(header::AUTHORIZATION, login.basic())],
                    };
                    headers = shown.values()?;
                }
                let mark = if realm.contains('?') { "" } else { "?" };
                format!("{realm}{mark}{query}").replace("?&", "?")
            }
        };
        let uri: Uri = url.parse().map_err(Failure::lasting)?;
        ask.url = &url;
        ask.label = &url;
        let response = client
            .send(&ask, &uri, &headers, until)
            .map_err(|failure| failure.context(&url))?;
        let answer = Answer {
            response,
            moved: None,
            refused: None,
        };
        let status = answer.response.status();
        if matches!(
            status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST
        ) {
            return Ok(Err(format!(
                "{host} gives no token for {} ({status})",
                asker.told
            )));
        }
        answer
            .check(StatusCode::OK)
            .map_err(|failure| failure.context(&url))?;
        let bytes = answer.bytes(&url, ANSWER_MAX)?;
        let bad = || Failure::lasting(anyhow!("{url} gives no token"));
        // What is wrong with it is not told: it is secret.
        let answer: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        let token = answer.get("token").or_else(|| answer.get("access_token"));
        let token = token.and_then(Value::as_str).ok_or_else(bad)?;
        bearer(token).map(Ok).map_err(|_| bad())
    }
}

impl Access for Registry {
    fn show(&self, _ask: &Ask<'_>, _url: &Uri) -> Result<Shown, Failure> {
        let state = self.lock();
        let headers = state.shown.iter();
        Ok(Shown {
            stamp: state.stamp,
            headers: headers
                .map(|shown| (header::AUTHORIZATION, shown.clone()))
                .collect(),
        })
    }

    fn refused(&self, refusal: Refusal<'_>) -> Result<Verdict, Failure> {
        let status = refusal.response.status();
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Ok(Verdict::Stays(None));
        }
        // Others wait for the token, rather than to get one each.
        let mut state = self.lock();
        let first = status == StatusCode::UNAUTHORIZED && !refusal.last;
        if first && state.stamp != refusal.stamp {
            return Ok(Verdict::Again);
        }
        if let Some(Err(error)) = self.file.as_ref().map(SecretFile::reload) {
            log!("{error:#}");
        }
        let stays = |why: String| {
            Ok(Verdict::Stays(Some(Refused {
                why,
                everything: true,
            })))
        };
        let asker = self.asker(refusal.until);
        if !first {
            return stays(match status {
                StatusCode::FORBIDDEN => format!("not for {}", asker.told),
                _ => format!("it does not take the token for {}", asker.told),
            });
        }
        let headers = refusal.response.headers();
        let challenges = Challenge::parse(headers.get_all(header::WWW_AUTHENTICATE).iter());
        let find = |scheme: &str| challenges.iter().find(|one| one.scheme == scheme);
        let new = if let Some(challenge) = find("bearer") {
            let with = (refusal.client, refusal.home, refusal.until);
            match self.token(challenge, &asker, with)? {
                Ok(token) => token,
                Err(why) => return stays(why),
            }
        } else {
            match (find("basic"), &asker.known) {
                (Some(_), Some(Known::Login(login))) => login.basic(),
                _ => return stays(format!("not for {}", asker.told)),
            }
        };
        if state.shown.as_ref() == Some(&new) {
            return stays(format!("it does not take {}", asker.told));
        }
        *state = State {
            stamp: state.stamp.wrapping_add(1),
            shown: Some(new),
        };
        Ok(Verdict::Again)
    }

    fn reload(&self) -> Result<bool> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        let changed = file.reload()?;
        if changed {
            let mut state = self.lock();
            *state = State {
                stamp: state.stamp.wrapping_add(1),
                shown: None,
            };
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_has_a_scheme_and_pairs() {
        let parse = |text: &str| {
            let value = HeaderValue::from_str(text).unwrap();
            Challenge::parse(std::iter::once(&value))
        };
        // The example of the distribution project's specification, and Basic behind it.
        let all = parse(
            "Bearer realm=\"https://auth.example.org/token\",service=\"registry.example.org\",scope=\"repository:a/b:pull,push\", Basic realm=x",
        );
        assert_eq!(all.len(), 2);
        assert_eq!(
            (&all[0].scheme[..], &all[1].scheme[..]),
            ("bearer", "basic")
        );
        assert_eq!(all[0].get("realm"), Some("https://auth.example.org/token"));
        assert_eq!(all[0].get("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(all[1].get("realm"), Some("x"));
        for bad in ["", ",", "=", "a=b", "Bearer realm=\"x"] {
            let all = parse(bad);
            assert!(all.iter().all(|one| one.pairs.is_empty()), "{bad}: {all:?}");
        }
    }
}
