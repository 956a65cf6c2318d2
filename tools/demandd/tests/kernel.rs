// SPDX-License-Identifier: GPL-2.0
//! The kernel's tables as `demandd status` shows them, also when they are not as expected.

use std::fs;

use demandd::kernel::Kernel;
use demandd::status::{json, table};
use serde_json::{json, Value};
use tempfile::TempDir;

const CACHES: &str = "\
daemon linger timeout granule volumes objects queued delivered oldest_ms done failed hung done_bytes culling stopped tag
connected 30 0 4096 1 2 3 4 1500 100 5 1 409600 1 0 CacheFiles
lingering 60 10 1048576 1 0 0 0 0 0 0 0 0 0 0 a name with blanks
";
const OBJECTS: &str = "\
size present_blocks complete hits misses seeks tag/name
40960 10 1 7 8 9 CacheFiles/Da.img
5000 0 0 0 0 0 CacheFiles/Dwith  two blanks
";
const REQUESTS: &str = "\
id state age_ms start len waiting tag/name
18446744073709551615 delivered 1500 4096 8192 2 CacheFiles/Da.img
8 queued 0 0 4096 0 CacheFiles/Da.img
";

fn dir(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn read(files: &[(&str, &str)]) -> Kernel {
    Kernel::read(dir(files).path())
}

fn parsed(kernel: &Kernel) -> Value {
    let mut value: Value = serde_json::from_str(&json(&[], kernel)).unwrap();
    value["kernel"].take()
}

#[test]
fn programs_get_all_of_it() {
    let kernel = read(&[
        ("caches", CACHES),
        ("objects", OBJECTS),
        ("requests", REQUESTS),
    ]);
    let value = parsed(&kernel);
    assert_eq!(
        value["caches"][0],
        json!({
            "daemon": "connected", "linger": 30, "timeout": 0, "granule": 4096, "volumes": 1, "objects": 2,
            "queued": 3, "delivered": 4, "oldest_ms": 1500, "done": 100, "failed": 5, "hung": 1,
            "done_bytes": 409_600, "culling": 1, "stopped": 0, "tag": "CacheFiles",
        })
    );
    assert_eq!(value["caches"][1]["tag"], "a name with blanks");
    assert_eq!(
        value["objects"],
        json!([
            { "size": 40_960, "present_blocks": 10, "complete": 1, "hits": 7, "misses": 8, "seeks": 9,
              "tag/name": "CacheFiles/Da.img" },
            { "size": 5000, "present_blocks": 0, "complete": 0, "hits": 0, "misses": 0, "seeks": 0,
              "tag/name": "CacheFiles/Dwith  two blanks" },
        ])
    );
    assert_eq!(
        value["requests"][0],
        json!({
            "id": u64::MAX, "state": "delivered", "age_ms": 1500, "start": 4096, "len": 8192, "waiting": 2,
            "tag/name": "CacheFiles/Da.img",
        })
    );
    assert_eq!(value["requests"][1]["state"], "queued");
    assert_eq!(value["problems"], json!([]));
}

#[test]
fn people_get_tables() {
    let kernel = read(&[
        ("caches", CACHES),
        ("objects", OBJECTS),
        ("requests", REQUESTS),
    ]);
    let text = table(&[], &kernel, false);
    let (_, requests) = text.split_once("kernel: requests\n").unwrap();
    assert_eq!(
        requests,
        "                  id     state age_ms start  len waiting tag/name\n\
         18446744073709551615 delivered   1500  4096 8192       2 CacheFiles/Da.img\n\
         \u{20}                  8    queued      0     0 4096       0 CacheFiles/Da.img\n"
    );
    assert!(text.contains("\nkernel: caches\n") && text.contains("\nkernel: objects\n"));
}

#[test]
fn tables_without_a_line_are_not_shown() {
    let head = |text: &'static str| text.split_inclusive('\n').next().unwrap();
    let kernel = read(&[
        ("caches", head(CACHES)),
        ("objects", head(OBJECTS)),
        ("requests", head(REQUESTS)),
    ]);
    assert_eq!(kernel.to_string(), "\nkernel: no cache is bound\n");
    let none = json!({ "caches": [], "objects": [], "requests": [], "problems": [] });
    assert_eq!(parsed(&kernel), none);
}

#[test]
fn columns_go_by_their_names() {
    let objects = "\
new hits size tag/name
x 1 2 CacheFiles/Da
";
    let kernel = read(&[
        ("caches", CACHES),
        ("objects", objects),
        ("requests", REQUESTS),
    ]);
    let value = parsed(&kernel);
    let expected = json!([{ "size": 2, "hits": 1, "tag/name": "CacheFiles/Da" }]);
    assert_eq!(value["objects"], expected);
    assert_eq!(value["problems"], json!([]));
    assert!(kernel
        .to_string()
        .contains("size hits tag/name\n   2    1 CacheFiles/Da\n"));
}

#[test]
fn what_is_not_there_takes_one_line() {
    let dir = dir(&[]);
    let absent = dir.path().join("absent");
    let kernel = Kernel::read(&absent);
    let text = kernel.to_string();
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    assert!(text.contains("cachefiles_demand is not loaded"), "{text}");
    assert_eq!(parsed(&kernel)["problems"].as_array().unwrap().len(), 1);

    // Some of it is there.
    let kernel = read(&[("caches", CACHES), ("requests", REQUESTS)]);
    let value = parsed(&kernel);
    assert_eq!(value["requests"].as_array().unwrap().len(), 2);
    assert_eq!(value["problems"].as_array().unwrap().len(), 1);
    let text = kernel.to_string();
    assert!(text.contains("objects: No such file"), "{text}");
    assert!(text.contains("kernel: requests\n"), "{text}");
}

#[test]
fn lines_that_make_no_sense_are_counted_and_the_others_shown() {
    let requests = "\
id state age_ms start len waiting tag/name
1 queued 2 3 4
x queued 2 3 4 5 CacheFiles/Da
1 queued -2 3 4 5 CacheFiles/Da

7 queued 2 3 4 5 CacheFiles/Da
99999999999999999999 queued 2 3 4 5 CacheFiles/Da
";
    for (text, rows, lines) in [
        (requests, 1, 5),
        ("", 0, 1),
        ("\n", 0, 1),
        ("what is this\n1 2 3\n", 0, 2),
        ("id\n1\n2 3\n", 1, 1),
        ("\u{0}\u{fffd}\n\u{0}", 0, 2),
    ] {
        let kernel = read(&[("caches", CACHES), ("objects", OBJECTS), ("requests", text)]);
        let value = parsed(&kernel);
        assert_eq!(
            value["requests"].as_array().unwrap().len(),
            rows,
            "{text:?}"
        );
        let problem = value["problems"][0].as_str().unwrap();
        assert!(
            problem.contains(&format!("requests: {lines} lines")),
            "{problem}"
        );
        assert_eq!(value["objects"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn names_cannot_move_the_cursor() {
    let objects = "size tag/name\n1 CacheFiles/D\u{1b}[2J\n";
    let kernel = read(&[
        ("caches", CACHES),
        ("objects", objects),
        ("requests", REQUESTS),
    ]);
    assert!(!kernel.to_string().contains('\u{1b}'));
}
