// SPDX-License-Identifier: GPL-2.0
//! The inputs that fuzzing left, each once: none of them breaks a target. This takes no fuzzing engine.

use std::fs;
use std::path::Path;

/// The largest input, in bytes.
const INPUT_MAX: usize = 4096;

/// The most that the inputs of one target may have together, in bytes.
const TARGET_MAX: usize = 20_000;

/// The bytes of a line of hexadecimal digits.
fn input(line: &str) -> Vec<u8> {
    assert!(line.len() % 2 == 0, "half a byte: {line}");
    (0..line.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&line[at..at + 2], 16).expect("two digits"))
        .collect()
}

#[test]
fn no_input_of_the_corpus_breaks_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, run) in fuzz::TARGETS {
        let file = corpus.join(format!("{name}.hex"));
        let text = fs::read_to_string(&file).expect("each target has a corpus");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let inputs: Vec<_> = lines.map(input).collect();
        assert!(!inputs.is_empty(), "{name} has no inputs");
        assert!(inputs.iter().map(Vec::len).sum::<usize>() <= TARGET_MAX);
        for (number, bytes) in (1..).zip(&inputs) {
            assert!(bytes.len() <= INPUT_MAX);
            // Told if it panics.
            println!("{name}: input {number} of {}", inputs.len());
            run(bytes);
        }
    }
}

#[test]
fn each_target_has_a_program_and_a_corpus() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names_in = |folder: &str, suffix: &str| {
        let mut names: Vec<_> = fs::read_dir(here.join(folder))
            .expect("a folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .filter_map(|name| name.strip_suffix(suffix).map(str::to_owned))
            .collect();
        names.sort();
        names
    };
    let mut names = fuzz::TARGETS.map(|(name, _)| name);
    names.sort();
    assert_eq!(names_in("fuzz_targets", ".rs"), names);
    assert_eq!(names_in("corpus", ".hex"), names);
}
