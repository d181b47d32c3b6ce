//! `cargo xtask image`: the OCI images of operator and agent, made without a container engine.
//!
//! An image is two kinds of layer: what programs need to run (C library, certificates, accounts), the same in all
//! images, and one layer a program. docs/images.md says what is in them and how they get onto nodes.

mod base;
mod documents;
mod elf;
mod layer;
mod packages;
mod program;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use flate2::Compression;
use larder_archive::{SaveImage, SaveOptions, to_file};
use larder_oci::manifest::OCI_MANIFEST;
use larder_oci::spec::Descriptor;
use larder_oci::{Digest, ImageKey, ImageName, Platform};
use larder_store::{Claim, NewImage, Store};
use larder_tests::Scratch;

use crate::steps::{cargo, megabytes, root, step};
use documents::{About, Image};
use layer::Layer;
use program::Program;

/// What to make, and where.
#[derive(Debug, Args)]
pub struct Options {
    /// The folder for larder-operator.tar and larder-agent.tar [default: target/images].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// How the programs are compiled: release is small and fast, dev is there sooner.
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// The images' tag.
    #[arg(long, default_value = concat!("v", env!("CARGO_PKG_VERSION")))]
    tag: String,
    /// What the images' names begin with: a registry, and what comes before the last slash.
    #[arg(long, value_name = "PREFIX", default_value = "ghcr.io/larder-dev")]
    repository: String,
    /// Build nothing: take the programs as cargo has built them before.
    #[arg(long)]
    built: bool,
}

/// A profile of cargo's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Optimised.
    Release,
    /// As tests run them.
    Dev,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }

    /// Of what is kept and fetched often, each byte counts; a test is better served sooner (1.9 s of CPU instead of
    /// 4.8, for 4 % more).
    fn compression(self) -> Compression {
        match self {
            Self::Release => Compression::best(),
            Self::Dev => Compression::default(),
        }
    }

    /// Its folder below `target`.
    fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }
}

/// What differs between the images.
struct Recipe {
    title: &'static str,
    description: &'static str,
    /// `UID:GID`, in figures: kubelet checks `runAsNonRoot` by them, and knows no names.
    user: &'static str,
    /// The first is what the image runs.
    programs: &'static [&'static str],
}

const RECIPES: [Recipe; 2] = [
    Recipe {
        title: "larder-operator",
        description: "Larder's operator: works out which container images each node is to hold",
        user: "65532:65532",
        programs: &["larder-operator"],
    },
    Recipe {
        title: "larder-agent",
        description: "Larder's agent: keeps a node's container images as they are wanted",
        // The runtime's socket is root's.
        user: "0:0",
        programs: &["larder-agent", "larder"],
    },
];

/// Makes both images.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let names = RECIPES.iter().map(|recipe| options.name(recipe)).collect::<anyhow::Result<Vec<_>>>()?;
    let created = source::created()?;
    if !options.built {
        let what = format!("building larder-operator, larder-agent and larder ({})", options.profile.name());
        let packages =
            ["--package", "larder-operator", "--package", "larder-agent", "--package", "larder-cli"];
        let how = ["build", "--quiet", "--profile", options.profile.name()];
        step(what, || cargo(&[&how[..], &packages].concat()))?;
    }
    let output = options.output.clone().unwrap_or_else(|| root().join("target/images"));
    std::fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    step("making the images", || {
        let scratch = Scratch::new("image")?;
        let parts = Parts::pack(options.profile, &scratch)?;
        let store = Store::open(&scratch.path().join("store"))?;
        let revision = source::revision();
        for (recipe, name) in RECIPES.iter().zip(names) {
            let about = About {
                title: recipe.title,
                description: recipe.description,
                user: recipe.user,
                platform: parts.platform.clone(),
                revision: revision.clone(),
                created,
            };
            let image = Image::new(&about, parts.layers(recipe)?)?;
            let key = ImageKey { name, platform: about.platform };
            let path = output.join(format!("{}.tar", recipe.title));
            let digest = write(&store, &key, &image, &path)?;
            describe(&key, &digest, &image, &path);
        }
        Ok(())
    })
}

impl Options {
    /// As they are released, with the names that `manifests/base` has.
    pub fn for_release(output: &Path, built: bool) -> Self {
        Self {
            output: Some(output.to_owned()),
            profile: Profile::Release,
            tag: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
            repository: "ghcr.io/larder-dev".to_owned(),
            built,
        }
    }

    fn name(&self, recipe: &Recipe) -> anyhow::Result<ImageName> {
        let text = format!("{}/{}:{}", self.repository, recipe.title, self.tag);
        let name: ImageName = text.parse().context("check --repository and --tag")?;
        if name.digest().is_some() || name.tag() != Some(self.tag.as_str()) {
            bail!("{:?} is no tag: check --tag", self.tag);
        }
        Ok(name)
    }
}

/// What images are put together from.
struct Parts {
    platform: Platform,
    /// The layer that all images begin with.
    base: Layer,
    /// One a program.
    programs: BTreeMap<&'static str, Layer>,
}

impl Parts {
    fn pack(profile: Profile, scratch: &Scratch) -> anyhow::Result<Self> {
        let names = RECIPES.iter().flat_map(|recipe| recipe.programs).copied();
        let programs = at_once(names, |name| Ok((name, Program::take(name, profile, scratch)?)))?;
        let elves: Vec<_> = programs.iter().map(|(_, program)| &program.elf).collect();
        let [first, rest @ ..] = elves.as_slice() else { bail!("there are no programs") };
        if rest.iter().any(|elf| elf.architecture != first.architecture) {
            bail!("the programs are for different architectures: build them anew");
        }
        let platform = format!("linux/{}", first.architecture.oci()).parse()?;
        let base = base::files(&elves)?
            .pack("cargo xtask image: libraries, certificates, accounts", profile.compression())
            .context("cannot pack the libraries")?;
        let packed = at_once(&programs, |(name, program)| Ok((*name, program.pack(profile.compression())?)))?;
        Ok(Self { platform, base, programs: packed.into_iter().collect() })
    }

    /// The layers of an image, the lowest first.
    fn layers(&self, recipe: &Recipe) -> anyhow::Result<Vec<&Layer>> {
        let own = recipe
            .programs
            .iter()
            .map(|name| self.programs.get(name).with_context(|| format!("there is no layer of {name}")));
        std::iter::once(Ok(&self.base)).chain(own).collect()
    }
}

/// Does the same to each item, on a thread of its own.
fn at_once<I: Send, O: Send>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> anyhow::Result<O> + Sync,
) -> anyhow::Result<Vec<O>> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        let results = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.collect()
    })
}

/// Puts an image into the store, and saves it from there as `larder save` does. Gives the manifest's digest.
fn write(store: &Store, key: &ImageKey, image: &Image<'_>, path: &Path) -> anyhow::Result<Digest> {
    let digest = Digest::sha256(&image.manifest);
    let config = Digest::sha256(&image.config);
    let blobs = [(&digest, &image.manifest), (&config, &image.config)]
        .into_iter()
        .chain(image.layers.iter().map(|layer| (&layer.digest, &layer.blob)));
    let lease = store.lease(key)?;
    for (digest, bytes) in blobs {
        lease.protect([digest])?;
        store.put_blob(&lease, digest, bytes)?;
    }
    let spec_digest: larder_oci::spec::Digest = digest.as_str().parse()?;
    let manifest = Descriptor::new(OCI_MANIFEST.into(), image.manifest.len() as u64, spec_digest);
    lease.commit(NewImage { manifest, index: None, claim: Claim::None })?;
    let stored = store.image(key)?.context("the image is not in the store")?;
    let images = [SaveImage { image: stored, names: vec![key.name.clone()] }];
    to_file(store, &images, SaveOptions::default(), path, &|| false)?;
    Ok(digest)
}

fn describe(key: &ImageKey, digest: &Digest, image: &Image<'_>, path: &Path) {
    let packed: usize = image.layers.iter().map(|layer| layer.blob.len()).sum();
    let unpacked: u64 = image.layers.iter().map(|layer| layer.unpacked).sum();
    println!("  {}", path.display());
    println!("    {} ({}), {digest}", key.name, key.platform);
    println!("    {} to fetch, {} unpacked", megabytes(packed as u64), megabytes(unpacked));
    for layer in &image.layers {
        let (packed, made_by) = (megabytes(layer.blob.len() as u64), &layer.made_by);
        println!("    {packed:>9} {:>9}  {made_by}", megabytes(layer.unpacked));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn names(args: &[&str]) -> anyhow::Result<Vec<String>> {
        let line = Line::try_parse_from([&["image"], args].concat())?;
        RECIPES.iter().map(|recipe| Ok(line.options.name(recipe)?.to_string())).collect()
    }

    #[test]
    fn the_dockerfile_says_the_same() {
        let dockerfile = include_str!("../../../Dockerfile");
        for recipe in &RECIPES {
            let stage = recipe.title.trim_start_matches("larder-");
            let (_, stage) = dockerfile.split_once(&format!("FROM base AS {stage}\n")).unwrap();
            let stage = stage.split("\nFROM ").next().unwrap();
            let has = |line: &str| assert!(stage.contains(line), "{line:?} is not in {stage}");
            has(&format!("title={} ", recipe.title));
            has(&format!("description={:?}\n", recipe.description));
            has(&format!("\nUSER {}\n", recipe.user));
            has(&format!("\nENTRYPOINT [\"/usr/bin/{}\"]\n", recipe.title));
            for program in recipe.programs {
                has(&format!("\nCOPY --from=builder /out/{program} /usr/bin/\n"));
            }
        }
        assert!(dockerfile.contains(&format!("\nARG VERSION={}\n", env!("CARGO_PKG_VERSION"))));
        assert!(dockerfile.contains(documents::SOURCE));
        assert!(dockerfile.contains(&format!("\nENV {}\n", documents::MALLOC.join(" "))));
    }

    #[test]
    fn names_are_made_of_prefix_and_tag() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(names(&[]).unwrap()[1], format!("ghcr.io/larder-dev/larder-agent:v{version}"));
        let others = names(&["--repository", "registry.corp:5000/x", "--tag", "e2e"]).unwrap();
        let expected = ["registry.corp:5000/x/larder-operator:e2e", "registry.corp:5000/x/larder-agent:e2e"];
        assert_eq!(others, expected);
    }

    #[test]
    fn bad_names_are_refused_before_anything_is_built() {
        for (flag, value) in [
            ("--repository", "Registry/Upper"),
            ("--repository", ""),
            ("--repository", "registry.corp/x:v1"),
            ("--tag", ""),
            ("--tag", "a b"),
            ("--tag", &format!("v1@{}", Digest::sha256(b"x"))),
        ] {
            assert!(names(&[flag, value]).is_err(), "{flag} {value}");
        }
    }
}
