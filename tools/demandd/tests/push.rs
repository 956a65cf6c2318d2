// SPDX-License-Identifier: GPL-2.0
//! What is seen to when an image is pushed, wherever to.

mod stand_in;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;

use demandd::source::Failure;
use demandd::store::{push, Item, Store};
use stand_in::pushed::image;
use stand_in::Site;

/// A place that takes everything, while somebody changes a file.
#[derive(Debug)]
struct Place {
    changes: Option<PathBuf>,
    has: Mutex<Vec<String>>,
}

impl Store for Place {
    fn has(&self, _item: &Item) -> Result<bool, Failure> {
        Ok(false)
    }

    fn put(&self, item: &Item, _file: &File) -> Result<(), Failure> {
        self.has.lock().unwrap().push(item.name.clone());
        if let Some(path) = self
            .changes
            .as_ref()
            .filter(|path| path.ends_with(&item.name))
        {
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(b"?", 12_345).unwrap();
        }
        Ok(())
    }
}

#[test]
fn a_file_that_changes_while_it_is_pushed_is_an_error_and_the_manifest_stays() {
    let site = Site::new();
    image(&site);
    let dir = site.source_dir();
    let mut place = Place {
        changes: None,
        has: Mutex::default(),
    };
    push(&dir, "a", &place, |_, _| Ok(())).unwrap();
    let all = ["a.img", "a.img.chunks", "a.manifest"];
    assert_eq!(*place.has.lock().unwrap(), all);
    place.has.lock().unwrap().clear();
    place.changes = Some(dir.join("a.img"));
    let error = push(&dir, "a", &place, |_, _| Ok(())).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("cannot push a.img: it has changed while it was pushed"),
        "{error}"
    );
    assert_eq!(*place.has.lock().unwrap(), ["a.img"]);
}
