//! `larder save`: images as an archive.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use larder_archive::{Compression, Form, SaveImage, SaveOptions};
use larder_oci::{ImageName, Platform};

use crate::{
    Context, Failure, Status,
    catalog::{Catalog, Found, Record},
};

/// Flags and arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names or IDs; a repository without a tag stands for all its tags
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only these platforms, where there are several [default: all that are in the store]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    pub platform: Vec<Platform>,
    /// docker-archive or oci-archive [default: both in one]
    #[arg(long, value_name = "FORM")]
    pub format: Option<Form>,
    /// gzip, bzip2, zstd or none [default: by the file's extension]
    #[arg(long, value_name = "COMPRESSION")]
    pub compress: Option<Compression>,
}

/// Writes the archive.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    if args.output.is_none() && context.is_terminal() {
        return Err(Failure::new("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    let shared = context.clone();
    context
        .blocking(move |store| {
            let catalog = Catalog::read(store)?;
            let images = choose(&catalog, &args)?;
            let by_extension = args.output.as_deref().map(Compression::of_path).unwrap_or_default();
            let options = SaveOptions {
                form: args.format.unwrap_or_default(),
                compression: args.compress.unwrap_or(by_extension),
                threads: None,
            };
            let stop = || shared.is_interrupted();
            match &args.output {
                Some(path) => larder_archive::to_file(store, &images, options, path, &stop)?,
                None => larder_archive::save(store, &images, options, Stdout(&shared), &stop)?,
            };
            Ok(Status::SUCCESS)
        })
        .await
}

/// What to save. An image keeps the names that it was asked for by: none, if that was its ID.
fn choose(catalog: &Catalog, args: &Args) -> Result<Vec<SaveImage>, Failure> {
    let mut chosen: Vec<SaveImage> = Vec::new();
    for text in &args.images {
        let records = match whole_repository(catalog, text) {
            Some(records) => named(records),
            None => match catalog.find(text)? {
                Found::Name(records) => named(records),
                Found::Pinned(records) => {
                    let pinned = |record: &Record| record.name().untagged(&record.stored.target);
                    records.into_iter().map(|record| (record, Some(pinned(record)))).collect()
                }
                Found::Id(records) => records.into_iter().map(|record| (record, None)).collect(),
            },
        };
        let matching: Vec<_> = records
            .into_iter()
            .filter(|(record, _)| {
                args.platform.is_empty() || args.platform.iter().any(|wanted| wanted.runs(record.platform()))
            })
            .collect();
        if matching.is_empty() {
            let wanted: Vec<String> = args.platform.iter().map(ToString::to_string).collect();
            return Err(Failure::response(format_args!(
                "image with reference {text} was found but does not provide the specified platform ({})",
                wanted.join(", ")
            )));
        }
        for (record, name) in matching {
            add(&mut chosen, record, name);
        }
    }
    Ok(chosen)
}

fn named(records: Vec<&Record>) -> Vec<(&Record, Option<ImageName>)> {
    records.into_iter().map(|record| (record, Some(record.name().clone()))).collect()
}

fn add(chosen: &mut Vec<SaveImage>, record: &Record, name: Option<ImageName>) {
    let stored = &record.stored;
    let same = |other: &&mut SaveImage| {
        let other = &other.image;
        (&other.manifest_digest, &other.key.platform, &other.index)
            == (&stored.manifest_digest, &stored.key.platform, &stored.index)
    };
    match chosen.iter_mut().find(same) {
        Some(known) => known.names.extend(name),
        None => chosen.push(SaveImage { image: stored.clone(), names: name.into_iter().collect() }),
    }
}

/// All tags of a repository, if the text is a repository alone and has any.
fn whole_repository<'a>(catalog: &'a Catalog, text: &str) -> Option<Vec<&'a Record>> {
    let last = text.rsplit('/').next().unwrap_or(text);
    if last.contains([':', '@']) {
        return None;
    }
    let name: ImageName = text.parse().ok()?;
    let wanted = (name.registry(), name.repository());
    let of_it = |record: &&Record| {
        record.is_tagged() && (record.name().registry(), record.name().repository()) == wanted
    };
    let records: Vec<_> = catalog.records.iter().filter(of_it).collect();
    (!records.is_empty()).then_some(records)
}

/// The context's standard output, for those who want to write to a stream.
struct Stdout<'a>(&'a Context);

impl Write for Stdout<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write_all(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(failure) if failure.status == Status::PIPE => Err(io::ErrorKind::BrokenPipe.into()),
            Err(failure) => Err(io::Error::other(failure)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.print("").map_err(io::Error::other)
    }
}
