// SPDX-License-Identifier: GPL-2.0
//! Configuration files of the daemon.
//!
//! An input is the text of a file.

use crate::config_file;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Some(options) = options(text) else {
        return;
    };
    for (key, option) in &options {
        let value = option.strip_prefix(&format!("--{key}="));
        assert!(value.is_some(), "{option:?} is not about {key:?}");
    }
    // What does not matter changes nothing. A mark of the byte order is one in front only.
    if !text.starts_with('\u{feff}') {
        assert_eq!(options_of(&format!("# tag = 1\n{text}")), options);
    }
    assert_eq!(options_of(&format!("{text}\n# tag = 1")), options);
    // What makes no sense is not overlooked.
    assert_eq!(self::options(&format!("{text}\nno-such-key = 1")), None);
    if !options.is_empty() {
        assert_eq!(self::options(&format!("{text}\n{text}")), None);
    }
}

fn options_of(text: &str) -> Vec<(String, String)> {
    options(text).expect("it makes sense")
}

/// What the file becomes, key by key, if it makes sense.
fn options(text: &str) -> Option<Vec<(String, String)>> {
    let options = config_file::options(text).ok()?.into_iter();
    Some(options.map(|option| (option.key, option.text)).collect())
}
