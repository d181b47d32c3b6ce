//! `cargo xtask bench archive`: saving, loading and pushing one image by each program in turn, and Larder with and
//! without fsync. docs/BENCHMARKS.md says how to read the result.

mod fsync;
mod load;
mod push;
mod save;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use larder_tests::process::run as run_program;
use larder_tests::tools::{Tool, in_path};
use larder_tests::{Image, Layer, MachineFiles, Registry, RegistryOptions, Scratch};

use super::packages;
use crate::steps::{cargo, root, step};

/// The image's name in archives, layouts and the store.
const NAME: &str = "bench.example/app:v1";
/// The same for the image of many layers.
const SMALL_NAME: &str = "bench.example/small:v1";
/// How the image's bytes are spread over its layers, in percent.
const SHARES: [u64; 5] = [50, 25, 15, 7, 3];
const COMPRESSIONS: [Compression; 4] =
    [Compression::None, Compression::Gzip, Compression::Bzip2, Compression::Zstd];

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How often each program runs; the medians count.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The size of the image, compressed, in MiB: files of this machine in five layers.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u64).range(1..=2048))]
    size: u64,
    /// Only these; all by default.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Use this larder instead of building one.
    #[arg(long)]
    larder: Option<PathBuf>,
    /// Where to work: on the kind of disk that is meant. The system's folder for temporary files by default.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From a store or layout to an archive, in each compression.
    Save,
    /// From an archive into an empty store or layout.
    Load,
    /// To a registry: fresh, again, and by mount.
    Push,
    /// Pulls, loads and saves with and without fsync.
    Fsync,
}

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Bzip2,
    Zstd,
}

impl Compression {
    /// As `larder save --compress` has it.
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Zstd => "zstd",
        }
    }

    /// Programs that compress a file in its place, at the level that is also Larder's: command lines for a shell.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Gzip => &["gzip", "pigz"],
            Self::Bzip2 => &["bzip2"],
            Self::Zstd => &["zstd -T0 --quiet --rm"],
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::None => "tar",
            Self::Gzip => "tar.gz",
            Self::Bzip2 => "tar.bz2",
            Self::Zstd => "tar.zst",
        }
    }
}

/// What all parts share: programs, and the image in the forms that they begin with.
struct Stage {
    runs: usize,
    scratch: Scratch,
    registry: Registry,
    larder: PathBuf,
    skopeo: PathBuf,
    crane: PathBuf,
    /// The image in a store, under its name.
    store: PathBuf,
    /// The image in an OCI layout, under its name.
    layout: PathBuf,
}

/// Measures and prints.
pub fn run(options: &Options) -> anyhow::Result<()> {
    packages::ensure()?;
    let stage = Stage::set(options)?;
    let chosen = if options.only.is_empty() { Part::value_variants() } else { &options.only };
    for part in chosen {
        match part {
            Part::Save => save::run(&stage)?,
            Part::Load => load::run(&stage)?,
            Part::Push => push::run(&stage)?,
            Part::Fsync => fsync::run(&stage)?,
        }
    }
    Ok(())
}

impl Stage {
    fn set(options: &Options) -> anyhow::Result<Self> {
        let larder = if let Some(larder) = &options.larder {
            std::path::absolute(larder)?
        } else {
            step("building larder", || cargo(&["build", "--release", "--quiet", "-p", "larder-cli"]))?;
            root().join("target/release/larder")
        };
        let scratch = match &options.folder {
            Some(folder) => Scratch::in_folder(folder, "bench")?,
            None => Scratch::new("bench")?,
        };
        let stage = Self {
            runs: options.runs.max(1),
            registry: Registry::start(RegistryOptions::default())?,
            larder,
            skopeo: in_path("skopeo")?,
            crane: Tool::Crane.path()?,
            store: scratch.path().join("store"),
            layout: scratch.folder("layout")?,
            scratch,
        };
        step("making the image", || {
            let (mut files, mut builder) = (MachineFiles::list()?, Image::builder());
            for share in SHARES {
                builder = builder.layer(&files.layer((options.size << 20) * share / 100)?);
            }
            builder.build()?.write_layout(&stage.layout, NAME)?;
            stage.larder(&["load", "--quiet", "--input", &text(&stage.layout)])
        })?;
        Ok(stage)
    }

    /// Makes the image of many layers: random bytes, 100 layers of 50 kB.
    fn small_image() -> anyhow::Result<Image> {
        let mut builder = Image::builder();
        for seed in 0..100 {
            builder = builder.layer(&Layer::random(seed, 50_000)?);
        }
        Ok(builder.build()?)
    }

    /// A command line of larder, on this store.
    fn larder_command(&self, store: &Path, args: &[&str]) -> Vec<String> {
        [&[&*text(&self.larder), "--store", &text(store)], args]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    /// Runs larder on the image's store, unmeasured.
    fn larder(&self, args: &[&str]) -> anyhow::Result<()> {
        let store = text(&self.store);
        run_program(&self.larder, &[&["--store", &*store], args].concat(), &[], b"")?.ok()?;
        Ok(())
    }

    /// A command line of `skopeo copy`.
    fn skopeo_command(&self, args: &[&str]) -> Vec<String> {
        let copy = [text(&self.skopeo).as_str(), "--insecure-policy", "copy", "--quiet"].map(str::to_owned);
        copy.into_iter().chain(args.iter().map(|arg| (*arg).to_owned())).collect()
    }

    /// Where skopeo reads the image from.
    fn source(&self) -> String {
        format!("oci:{}:{NAME}", self.layout.display())
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A command line that runs `first` and then `program` on `file`.
fn followed_by(first: &[String], program: &str, file: &Path) -> Vec<String> {
    let script = format!(r#"file="$0"; "$@" && exec {program} "$file""#);
    ["sh".to_owned(), "-c".to_owned(), script, text(file)].into_iter().chain(first.iter().cloned()).collect()
}
