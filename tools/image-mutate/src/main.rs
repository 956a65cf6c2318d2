// SPDX-License-Identifier: GPL-2.0
//! Damages EROFS images where it hurts.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{ensure, Context, Result};
use clap::Parser;
use image_mutate::mutate::mutate;

/// Damage an EROFS image: one field or structure of it, or a few
///
/// Prints a line for each damaged image: the seed, the name of the image, and what was changed,
/// separated by tabs. Changes are separated by "; ": what (the structure and the field), whose (the
/// nid of an inode, the number of a device), where (a byte offset), and the value before and after.
///
/// The same seed and image give the same damage. The checksum of the super block is mostly made
/// right again, so that a reader gets to what is damaged.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// Which damage
    #[arg(long, value_name = "N")]
    seed: u64,
    /// Make so many, of the seeds from this one on: OUT is a folder then, and each is named by its
    /// seed. Of several images IN, take one after the other
    #[arg(long, value_name = "M")]
    count: Option<u64>,
    /// The image
    #[arg(value_name = "IN", required = true)]
    images: Vec<PathBuf>,
    /// Where to write the damaged one
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image-mutate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    ensure!(
        cli.count.is_some() || cli.images.len() == 1,
        "several images need --count, and a folder as OUT"
    );
    let images = cli
        .images
        .iter()
        .map(|path| fs::read(path).with_context(|| format!("read {}", path.display())))
        .collect::<Result<Vec<_>>>()?;
    let mut stdout = io::stdout().lock();
    for seed in (cli.seed..).take(usize::try_from(cli.count.unwrap_or(1))?) {
        let index = usize::try_from(seed % u64::try_from(images.len())?)?;
        let (Some(path), Some(image)) = (cli.images.get(index), images.get(index)) else {
            continue;
        };
        let mut image = image.clone();
        let edits = mutate(&mut image, seed).with_context(|| format!("{}", path.display()))?;
        let out = match cli.count {
            Some(_) => cli.out.join(seed.to_string()),
            None => cli.out.clone(),
        };
        fs::write(&out, &image).with_context(|| format!("write {}", out.display()))?;
        let edits: Vec<_> = edits.iter().map(ToString::to_string).collect();
        writeln!(stdout, "{seed}\t{}\t{}", name(path), edits.join("; "))?;
    }
    Ok(stdout.flush()?)
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
