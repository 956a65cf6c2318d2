// SPDX-License-Identifier: GPL-2.0
//! AWS Signature Version 4: proves to a server that who asks knows a secret key, without telling it.
//!
//! What is signed is described in "Signature Calculations for the Authorization Header" of the Amazon S3 API reference.

use std::fmt::Write as _;
use std::time::SystemTime;

use ring::hmac::{self, HMAC_SHA256};

use crate::digest::Digest;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a signature is good for, besides one request.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The time as [`stamp`] writes it.
    pub time: &'a str,
    /// The region, such as "eu-central-1".
    pub region: &'a str,
    /// The service, which is "s3".
    pub service: &'a str,
}

/// A request, as far as it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, escaped as it is sent.
    pub path: &'a str,
    /// What stands behind the question mark, escaped and in order.
    pub query: &'a str,
    /// Names in lower case, in order, with values.
    pub headers: &'a [(&'a str, &'a str)],
    /// The digest of the body in hexadecimal digits.
    pub payload: &'a str,
}

/// A time as it stands in signed requests: 20130524T000000Z.
pub fn stamp(time: SystemTime) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    // Sun, 06 Nov 1994 08:49:37 GMT: the calendar is known there already.
    let date = httpdate::fmt_http_date(time);
    let mut words = date.split(' ').skip(1);
    let mut word = || words.next().unwrap_or_default();
    let (day, month, year, clock) = (word(), word(), word(), word());
    let month = MONTHS.find(month).unwrap_or_default() / 3 + 1;
    format!("{year}{month:02}{day}T{}Z", clock.replace(':', ""))
}

/// The value of the header `Authorization`.
pub fn authorization(id: &str, secret: &str, scope: &Scope<'_>, request: &Signed<'_>) -> String {
    let Scope {
        time,
        region,
        service,
    } = scope;
    let day = time.split('T').next().unwrap_or_default();
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let within = format!("{day}/{region}/{service}/aws4_request");
    let hash = hex(Digest::of(canonical(request, &names).as_bytes()).as_bytes());
    let to_sign = format!("{ALGORITHM}\n{time}\n{within}\n{hash}");
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [day, region, service, "aws4_request"] {
        key = sign(&key, part.as_bytes());
    }
    let signature = hex(&sign(&key, to_sign.as_bytes()));
    format!("{ALGORITHM} Credential={id}/{within},SignedHeaders={names},Signature={signature}")
}

/// The request in the one way in which it can be written.
fn canonical(request: &Signed<'_>, names: &str) -> String {
    let Signed {
        method,
        path,
        query,
        headers,
        payload,
    } = request;
    let mut text = format!("{method}\n{path}\n{query}\n");
    for (name, value) in *headers {
        let _ = writeln!(text, "{name}:{}", value.trim());
    }
    let _ = write!(text, "\n{names}\n{payload}");
    text
}

fn sign(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(HMAC_SHA256, key);
    hmac::sign(&key, bytes).as_ref().to_vec()
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn times_are_written_without_signs() {
        let at = |seconds| stamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(1_369_353_600), "20130524T000000Z");
        assert_eq!(at(1_440_938_160), "20150830T123600Z");
        assert_eq!(at(951_782_399), "20000228T235959Z");
    }

    /// The examples of the API reference of Amazon S3.
    #[test]
    fn signatures_are_those_of_the_reference() {
        let host = ("host", "examplebucket.s3.amazonaws.com");
        let date = ("x-amz-date", "20130524T000000Z");
        let empty = ("x-amz-content-sha256", EMPTY);
        let welcome = hex(Digest::of(b"Welcome to Amazon S3.").as_bytes());
        let put = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            host,
            ("x-amz-content-sha256", &welcome),
            date,
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        let scope = Scope {
            time: date.1,
            region: "us-east-1",
            service: "s3",
        };
        for (method, path, query, headers, payload, signature) in [
            (
                "GET",
                "/test.txt",
                "",
                &[host, ("range", "bytes=0-9"), empty, date][..],
                EMPTY,
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "PUT",
                "/test%24file.text",
                "",
                &put,
                &welcome,
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                "GET",
                "/",
                "lifecycle=",
                &[host, empty, date],
                EMPTY,
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "GET",
                "/",
                "max-keys=2&prefix=J",
                &[host, empty, date],
                EMPTY,
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let request = Signed {
                method,
                path,
                query,
                headers,
                payload,
            };
            let (id, secret) = (
                "AKIAIOSFODNN7EXAMPLE",
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            );
            let value = authorization(id, secret, &scope, &request);
            let head = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=";
            assert!(value.starts_with(head), "{value}");
            assert!(
                value.ends_with(&format!(",Signature={signature}")),
                "{method} {path}?{query}"
            );
        }
    }

    /// get-vanilla, get-vanilla-query-order-key-case and post-vanilla of the test suite for Signature Version 4.
    #[test]
    fn signatures_are_those_of_the_test_suite() {
        let time = "20150830T123600Z";
        let scope = Scope {
            time,
            region: "us-east-1",
            service: "service",
        };
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", time)];
        for (method, query, signature) in [
            (
                "GET",
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "GET",
                "Param1=value1&Param2=value2",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "POST",
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
        ] {
            let request = Signed {
                method,
                path: "/",
                query,
                headers: &headers,
                payload: EMPTY,
            };
            let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
            let value = authorization("AKIDEXAMPLE", secret, &scope, &request);
            assert!(
                value.ends_with(&format!("Signature={signature}")),
                "{method} {query}"
            );
        }
    }
}
