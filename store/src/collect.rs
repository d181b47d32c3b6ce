//! Collection: deleting what nothing needs.
//!
//! Needed is what can be reached from `index.json`, and what a lease protects. Manifests are read twice: once before
//! the store's lock is taken, which is where the time goes, and again under it, when only what has changed in between
//! needs reading, for content under a digest never changes. Under the lock garbage is merely renamed; the slow
//! unlinking of large files comes after it.
//!
//! Where something cannot be read, what it refers to is not known, and no blob is deleted at all that time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use larder_oci::{
    Digest, Document,
    manifest::{ACCEPTED, MAX_MANIFEST_SIZE},
    spec::Descriptor,
};

use crate::{
    Store,
    error::{Result, StoreError, found},
    index::{Index, digests_in},
    layout::{Layout, digests, names, remove_file, sync_dir},
    lease,
    lock::{ExclusiveLock, same_file, try_lock},
};

/// How to collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectOptions {
    /// How long after its owner's death a lease still protects what a pull has fetched. Seven days by default; zero
    /// drops all that is not in use at this moment.
    pub dead_lease_age: Duration,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { dead_lease_age: Duration::from_secs(7 * 24 * 60 * 60) }
    }
}

/// What a collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// The blobs that are gone.
    pub blobs: Vec<Digest>,
    /// The blobs that were handed over and are not counted on any more. They took no space here.
    pub handed_over: Vec<Digest>,
    /// How many unfinished blobs are gone.
    pub partials: u64,
    /// How many bytes blobs and unfinished blobs took.
    pub bytes: u64,
    /// What a person should look at: a sentence each.
    pub warnings: Vec<String>,
}

impl Store {
    /// Deletes blobs that no image and no lease needs, unfinished blobs that nobody writes and no lease protects,
    /// leases whose owners have long been dead, and what interrupted writes left.
    ///
    /// While it holds the store's lock, taking a lease, protecting a blob, committing and removing wait; reading, and
    /// writing blobs that are protected already, do not. An unreadable `index.json` is an error, and nothing is
    /// deleted.
    pub fn collect(&self, options: &CollectOptions) -> Result<Collected> {
        let layout = &*self.layout;
        let mut known = Known::default();
        let before = Index::read(layout)?;
        Marker::new(self, &mut known).mark(&before);
        // A power cut can leave a blob with both its names, and a rename between those would do nothing.
        empty(&layout.trash())?;

        let mut collected = Collected::default();
        {
            let lock = ExclusiveLock::take(layout)?;
            let index = Index::read(layout)?;
            // Should another tool have written the index: it must not come back after a power cut and name what is
            // about to go.
            sync_index(layout)?;
            let oldest =
                SystemTime::now().checked_sub(options.dead_lease_age).unwrap_or(SystemTime::UNIX_EPOCH);
            let protected = lease::protected(layout, &lock, oldest)?;
            let mut marker = Marker::new(self, &mut known);
            marker.mark(&index);
            let Marker { marked, blind, warnings, .. } = marker;
            collected.warnings = warnings;
            if blind {
                collected
                    .warnings
                    .push("no blobs were deleted, since it is not known what is needed".to_owned());
            } else {
                let needed = |digest: &Digest| marked.contains(digest) || protected.contains(digest);
                self.discard_blobs(&lock, needed, &mut collected)?;
                collected.handed_over = self.discard_markers(&lock, needed)?;
            }
            self.discard_partials(&lock, &protected, &mut collected)?;
            remove_file(&layout.temporary("oci-layout"))?;
        }
        empty(&layout.trash())?;
        Ok(collected)
    }

    fn discard_blobs(
        &self,
        _lock: &ExclusiveLock,
        needed: impl Fn(&Digest) -> bool,
        collected: &mut Collected,
    ) -> Result<()> {
        for digest in digests(&self.layout.blobs())?.into_iter().filter(|digest| !needed(digest)) {
            let path = self.layout.blob(&digest);
            let metadata = fs::symlink_metadata(&path).map_err(StoreError::io("look at", &path))?;
            if metadata.is_dir() {
                collected.warnings.push(format!("{} is a folder in the place of a blob", path.display()));
                continue;
            }
            match fs::rename(&path, self.layout.discarded(&digest)) {
                // Not even for another name, and this is what makes space.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => remove_file(&path).map(drop)?,
                renamed => renamed.map_err(StoreError::io("delete", &path))?,
            }
            collected.bytes += metadata.len();
            collected.blobs.push(digest);
        }
        Ok(())
    }

    fn discard_partials(
        &self,
        _lock: &ExclusiveLock,
        protected: &BTreeSet<Digest>,
        collected: &mut Collected,
    ) -> Result<()> {
        let root = self.layout.partials();
        for algorithm in names(&root)? {
            for name in names(&root.join(&algorithm))? {
                // Small blobs that are at hand have a suffix of their own, and nobody goes on from what is left of them.
                let digest = format!("{}:{}", algorithm.display(), name.display()).parse::<Digest>();
                if digest.is_ok_and(|digest| protected.contains(&digest)) {
                    continue;
                }
                if let Some(bytes) = discard_unlocked(&root.join(&algorithm).join(name))? {
                    collected.partials += 1;
                    collected.bytes += bytes;
                }
            }
        }
        Ok(())
    }
}

/// Deletes a file that nobody has locked; returns the bytes it had.
fn discard_unlocked(path: &Path) -> Result<Option<u64>> {
    let Some(file) = found(File::open(path)).map_err(StoreError::io("open", path))? else { return Ok(None) };
    let ours = try_lock(&file).and_then(|ours| Ok(ours && same_file(&file, path)?));
    if !ours.map_err(StoreError::io("lock", path))? {
        return Ok(None);
    }
    let bytes = file.metadata().map_err(StoreError::io("look at", path))?.len();
    remove_file(path).map(|gone| gone.then_some(bytes))
}

/// Two collections may be at it at the same time.
fn empty(dir: &Path) -> Result<()> {
    names(dir)?.into_iter().try_for_each(|name| remove_file(&dir.join(name)).map(drop))
}

fn sync_index(layout: &Layout) -> Result<()> {
    let path = layout.index();
    File::open(&path).and_then(|file| file.sync_data()).map_err(StoreError::io("sync", &path))?;
    sync_dir(layout.root())
}

/// What is known of manifests by their digests.
#[derive(Default)]
struct Known(BTreeMap<Digest, Read>);

/// What reading a manifest gave.
#[derive(Clone)]
struct Read {
    edges: Vec<Edge>,
    warning: Option<String>,
}

/// Something that a manifest or the index refers to.
#[derive(Clone)]
struct Edge {
    digest: Digest,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Refers to nothing: a configuration, a layer.
    Leaf,
    /// A manifest or an index by its media type.
    Manifest,
    /// Of a media type that is not known: it may refer to others.
    Unknown,
}

/// Follows references from the index.
struct Marker<'a> {
    store: &'a Store,
    known: &'a mut Known,
    marked: BTreeSet<Digest>,
    /// Something could not be read, so that what it refers to is not marked.
    blind: bool,
    warnings: Vec<String>,
}

impl<'a> Marker<'a> {
    fn new(store: &'a Store, known: &'a mut Known) -> Self {
        Self { store, known, marked: BTreeSet::new(), blind: false, warnings: Vec::new() }
    }

    fn mark(&mut self, index: &Index) {
        let mut walked = BTreeSet::new();
        let mut open = roots(index);
        for root in &open {
            if matches!(self.store.blob_size(&root.digest), Ok(None)) {
                let digest = &root.digest;
                self.warnings
                    .push(format!("blob {digest}, which index.json names, is missing; pull its image again"));
            }
        }
        while let Some(edge) = open.pop() {
            self.marked.insert(edge.digest.clone());
            if edge.kind != Kind::Leaf && walked.insert(edge.digest.clone()) {
                open.extend(self.follow(&edge));
            }
        }
    }

    fn read(&self, edge: &Edge) -> Result<Vec<u8>> {
        // What was handed over is a layer, whatever a stranger's document takes it for.
        if edge.kind == Kind::Unknown && self.store.file_size(&edge.digest)?.is_none() {
            return Err(self.store.not_found(&edge.digest));
        }
        self.store.read_blob(&edge.digest, MAX_MANIFEST_SIZE)
    }

    fn follow(&mut self, edge: &Edge) -> Vec<Edge> {
        let read = match self.known.0.get(&edge.digest) {
            Some(known) => known.clone(),
            None => match self.read(edge) {
                Ok(bytes) => {
                    self.known.0.entry(edge.digest.clone()).or_insert(interpret(edge, &bytes)).clone()
                }
                // Of an index, most manifests are for other platforms and not there.
                Err(StoreError::NotFound { .. }) => return Vec::new(),
                Err(StoreError::TooLarge { .. }) if edge.kind == Kind::Unknown => return Vec::new(),
                Err(error) => {
                    self.warnings.push(error.to_string());
                    self.blind = true;
                    return Vec::new();
                }
            },
        };
        self.warnings.extend(read.warning);
        read.edges
    }
}

fn interpret(edge: &Edge, bytes: &[u8]) -> Read {
    match Document::parse(None, bytes) {
        Ok(document) => Read { edges: document_edges(&document), warning: None },
        Err(error) => {
            let warning = format!("manifest {} is kept, with all that it mentions: {error}", edge.digest);
            Read { edges: mentioned(bytes), warning: (edge.kind == Kind::Manifest).then_some(warning) }
        }
    }
}

/// Where to start. The image index behind one of our images is kept for its own sake: which of its manifests are
/// needed, the images say.
fn roots(index: &Index) -> Vec<Edge> {
    let mut roots = Vec::new();
    for entry in &index.entries {
        if let Some(image) = &entry.image {
            roots.push(Edge { digest: image.manifest_digest.clone(), kind: Kind::Manifest });
            roots.extend(image.index.iter().map(|_| Edge { digest: image.target.clone(), kind: Kind::Leaf }));
        } else if let Some(edge) = entry.descriptor().as_ref().and_then(edge) {
            roots.push(edge);
        } else {
            roots.extend(mentioned(entry.text().as_bytes()));
        }
    }
    roots
}

fn document_edges(document: &Document) -> Vec<Edge> {
    let subject = match document {
        Document::Manifest(manifest) => manifest.subject(),
        Document::Index(index) => index.subject(),
    };
    let is_leaf = matches!(document, Document::Manifest(_));
    let named = document.descriptors().filter_map(|descriptor| {
        let edge = edge(descriptor)?;
        Some(if is_leaf { Edge { kind: Kind::Leaf, ..edge } } else { edge })
    });
    named.chain(subject.iter().filter_map(edge)).collect()
}

fn edge(descriptor: &Descriptor) -> Option<Edge> {
    let known = ACCEPTED.contains(&descriptor.media_type().as_ref());
    let kind = if known { Kind::Manifest } else { Kind::Unknown };
    Some(Edge { digest: Digest::try_from(descriptor.digest()).ok()?, kind })
}

/// For documents that cannot be parsed: better to keep too much.
fn mentioned(text: &[u8]) -> Vec<Edge> {
    digests_in(text).into_iter().map(|digest| Edge { digest, kind: Kind::Unknown }).collect()
}
