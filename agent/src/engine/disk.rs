//! Whether there is room for an image on the node's disks.
//!
//! Looked at once its size is known, before any of it is fetched. What is missing of it, and what unpacking it takes, has to
//! fit into what is free, beside what is to be kept free (`diskReserve`) and what images that are under way will take yet. One
//! that would fit but for those waits until they are done; one that does not fit at all has failed.
//!
//! # What is counted
//!
//! | | counts |
//! | --- | --- |
//! | a layer, the configuration | the bytes that neither the store nor the runtime has, whole blocks |
//! | unpacking, of layers that the runtime does not have yet | compressed: three times the layer's size; otherwise once |
//! | an image that is under way | what it lacks yet, and all of its unpacking until the runtime has it |
//!
//! Three times: how large a layer is unpacked is told nowhere. Trees of Debian 13 shrink with `gzip -6` to between 1/2.6
//! (`/usr/bin`, `/usr/sbin`) and 1/3.4 (`/usr/lib/python3`, `/etc`), `/usr/share/perl` to 1/4.3; zstd gives a tenth more.
//! Binaries are most of an image. A layer that grows more may fill the disk all the same, which is an error like any other.
//!
//! # Which disks
//!
//! The layer store's; and the one where the runtime keeps layers, packed and unpacked, where the agent can see that: in a
//! container it is the disk of the container's own root, which the runtime has made there. Where it is not known, both count
//! as one. To be kept free is the same on each.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use larder_crds::DiskReserve;
use larder_pull::{Admission, Need, Needs, Progress};
use rustix::fs::{statfs, statvfs};

/// How many times its size a compressed layer takes unpacked.
const UNPACKED: u64 = 3;
/// What file systems give out space in, in bytes.
const BLOCK: u64 = 4096;
/// How Linux marks an overlay (<https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/magic.h>).
const OVERLAY: u64 = 0x794c_7630;
/// Where runtimes keep their data unless they are told otherwise.
const USUAL_ROOTS: [&str; 2] = ["/var/lib/containerd", "/var/lib/containers/storage"];

/// What an image takes of one disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Share {
    /// What is to arrive.
    arriving: u64,
    /// What it takes besides, until the runtime has the image.
    unpacked: u64,
}

impl Share {
    fn sum(self) -> u64 {
        self.arriving.saturating_add(self.unpacked)
    }

    fn add(&mut self, arriving: u64, unpacked: u64) {
        self.arriving = self.arriving.saturating_add(arriving);
        self.unpacked = self.unpacked.saturating_add(unpacked);
    }

    /// What is left of it when only so many bytes are still to come.
    fn left(self, to_come: u64) -> u64 {
        Self { arriving: self.arriving.min(to_come), ..self }.sum()
    }
}

/// What an image takes of the node's disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Takes {
    store: Share,
    /// Nothing where the runtime's disk is not known.
    runtime: Share,
}

/// What `needs` come to. `unpacks`: the image is given to a runtime. `apart`: it is known where that keeps it.
fn takes(needs: &Needs, unpacks: bool, apart: bool) -> Takes {
    let mut takes = Takes::default();
    for need in &needs.blobs {
        let missing = need.presence.missing(need.size).div_ceil(BLOCK).saturating_mul(BLOCK);
        let goes_to_runtime = need.is_layer && unpacks;
        let unpacked = if goes_to_runtime && !need.presence.elsewhere { unpacked(need) } else { 0 };
        let is_begun_here = need.presence.here || need.presence.begun_here > 0;
        match (goes_to_runtime && apart, is_begun_here) {
            (false, _) => takes.store.add(missing, unpacked),
            (true, false) => takes.runtime.add(missing, unpacked),
            // It is made whole where it was begun, and copied then.
            (true, true) => {
                takes.store.add(missing, 0);
                takes.runtime.add(0, unpacked.saturating_add(need.size));
            }
        }
    }
    takes
}

fn unpacked(layer: &Need) -> u64 {
    let is_plain = layer.media_type.rsplit('.').next() == Some("tar");
    layer.size.saturating_mul(if is_plain { 1 } else { UNPACKED })
}

/// How much of a file system is free, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Space {
    free: u64,
    size: u64,
}

impl Space {
    fn of(folder: &Path) -> io::Result<Self> {
        let found = statvfs(folder)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Self { free: bytes(found.f_bavail), size: bytes(found.f_blocks) })
    }

    /// The bytes to be kept free, and the percentage that says so, where one does.
    fn reserve(self, reserve: DiskReserve) -> (u64, Option<u64>) {
        let positive = |number: i64| u64::try_from(number).unwrap_or_default();
        let percent = reserve.percent.map(|percent| positive(percent.into()).min(100));
        let share = percent.map_or(0, |percent| self.size / 100 * percent + self.size % 100 * percent / 100);
        let bytes = reserve.bytes.map_or(0, positive);
        (share.max(bytes), percent.filter(|_| share >= bytes))
    }
}

/// Why there is no room.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lack {
    why: String,
    /// There would be room, were it not for images that are under way.
    passes: bool,
}

/// Says why there is no room, if there is none. `taken`: what images that are under way will take yet.
fn check(share: Share, space: Space, reserve: DiskReserve, taken: u64, place: &str) -> Result<(), Lack> {
    let (reserved, percent) = space.reserve(reserve);
    let alone = share.sum().saturating_add(reserved);
    if share.sum() == 0 || alone.saturating_add(taken) <= space.free {
        return Ok(());
    }
    let mut text = format!("it needs {} on {place}", bytes(share.sum()));
    if share.unpacked > 0 {
        let (arriving, unpacked) = (bytes(share.arriving), bytes(share.unpacked));
        let _ = write!(text, " ({arriving} to fetch, about {unpacked} to unpack it)");
    }
    let _ = write!(text, ", where {} are free", bytes(space.free));
    if reserved > 0 {
        let percent = percent.map(|percent| format!(" ({percent}%)")).unwrap_or_default();
        let _ = write!(text, " and {} of them are kept free{percent}", bytes(reserved));
    }
    if taken > 0 {
        let _ = write!(text, "; {} more go to images that are being fetched", bytes(taken));
    }
    text.push_str(if reserved > 0 {
        "; free some space, or lower diskReserve"
    } else {
        "; free some space, or give the node a larger disk"
    });
    Err(Lack { why: text, passes: alone <= space.free })
}

/// Bytes as people read them, such as `1.2 GiB`.
pub(super) fn bytes(count: u64) -> String {
    let mut unit = "B";
    let mut value = count as f64;
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        // What would be written as 1024.0 is 1.0 of the next.
        if value < 1023.95 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// The disks that images go to, and what those that are under way will take of them.
#[derive(Debug)]
pub(super) struct Disks {
    store: PathBuf,
    /// A folder on the disk where the runtime keeps images, where that is known.
    runtime: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reserve: DiskReserve,
    under_way: BTreeMap<u64, UnderWay>,
    next: u64,
}

#[derive(Debug)]
struct UnderWay {
    takes: Takes,
    /// Gone once all has come.
    progress: Weak<Progress>,
}

impl UnderWay {
    fn left(&self, of: impl Fn(&Takes) -> Share) -> u64 {
        let to_come = self.progress.upgrade().map_or(0, |progress| match progress.total() {
            // It has not begun to count.
            0 => u64::MAX,
            total => total.saturating_sub(progress.present()),
        });
        of(&self.takes).left(to_come)
    }
}

impl Disks {
    /// The disk of the layer store, and that of the runtime: where `runtime` is, or where that seems to be.
    pub(super) fn new(store: &Path, runtime: Option<PathBuf>) -> Self {
        Self { store: store.to_owned(), runtime: runtime.or_else(runtime_root), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be kept free from now on.
    pub(super) fn keep_free(&self, reserve: DiskReserve) {
        self.state().reserve = reserve;
    }

    /// Whether there is room now for what there was none for.
    pub(super) fn have_room_for(&self, takes: &Takes) -> bool {
        self.check(&self.state(), takes).is_ok()
    }

    /// Whether it is images under way alone that are in the way.
    pub(super) fn are_crowded_for(&self, takes: &Takes) -> bool {
        self.check(&self.state(), takes).is_err_and(|lack| lack.passes)
    }

    fn check(&self, state: &State, takes: &Takes) -> Result<(), Lack> {
        let others = |of: fn(&Takes) -> Share| {
            state.under_way.values().fold(0_u64, |sum, image| sum.saturating_add(image.left(of)))
        };
        let place = format!("the disk of {}", self.store.display());
        let first = check_disk(&self.store, takes.store, state.reserve, others(|takes| takes.store), &place);
        let Some(runtime) = &self.runtime else { return first };
        let place = "the container runtime's disk";
        let second = check_disk(runtime, takes.runtime, state.reserve, others(|takes| takes.runtime), place);
        match (first, second) {
            // What does not pass by itself is what is to be told.
            (Ok(()) | Err(Lack { passes: true, .. }), Err(lack)) | (Err(lack), _) => Err(lack),
            (Ok(()), Ok(())) => Ok(()),
        }
    }
}

fn check_disk(
    folder: &Path,
    share: Share,
    reserve: DiskReserve,
    taken: u64,
    place: &str,
) -> Result<(), Lack> {
    match Space::of(folder) {
        Ok(space) => check(share, space, reserve, taken, place),
        Err(error) => {
            // Who can't look can't refuse. What goes wrong then is told when it does.
            tracing::warn!(folder = %folder.display(), %error, "cannot see how much of the disk is free");
            Ok(())
        }
    }
}

/// A folder on the disk where the node's runtime keeps images, as far as that can be seen from here.
fn runtime_root() -> Option<PathBuf> {
    // A container's root is an overlay of layers that the runtime keeps, and tells how full their disk is.
    let root = Path::new("/");
    if statfs(root).is_ok_and(|found| u64::try_from(found.f_type) == Ok(OVERLAY)) {
        return Some(root.to_owned());
    }
    USUAL_ROOTS.iter().map(PathBuf::from).find(|root| root.is_dir())
}

/// One try's claim on space: from when it is admitted until it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    disks: Arc<Disks>,
    number: u64,
    unpacks: bool,
    progress: Weak<Progress>,
    refused: Mutex<Option<Refused>>,
}

/// What there was no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub takes: Takes,
    /// There would have been, were it not for images that are under way.
    pub passes: bool,
}

impl Ticket {
    /// For an image whose progress is told there. `unpacks`: it is given to a runtime.
    pub(super) fn new(disks: &Arc<Disks>, progress: &Arc<Progress>, unpacks: bool) -> Self {
        let number = {
            let mut state = disks.state();
            state.next += 1;
            state.next
        };
        Self {
            disks: disks.clone(),
            number,
            unpacks,
            progress: Arc::downgrade(progress),
            refused: Mutex::default(),
        }
    }

    /// What there was no room for.
    pub(super) fn refused(&self) -> Option<Refused> {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission for Ticket {
    fn admit(&self, needs: &Needs) -> Result<(), String> {
        let takes = takes(needs, self.unpacks, self.disks.runtime.is_some());
        // Asked and taken in one go: two that fit one by one may not fit together.
        let mut state = self.disks.state();
        state.under_way.remove(&self.number);
        let Err(lack) = self.disks.check(&state, &takes) else {
            let progress = self.progress.clone();
            state.under_way.insert(self.number, UnderWay { takes, progress });
            return Ok(());
        };
        let refused = Refused { takes, passes: lack.passes };
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
        Err(lack.why)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.disks.state().under_way.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use larder_oci::{Digest, ImageKey};
    use larder_store::Presence;
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn need(size: u64, media_type: &str, presence: Presence) -> Need {
        let is_layer = media_type.contains("layer") || media_type.contains("diff");
        let digest = Digest::sha256(size.to_string().as_bytes());
        Need { digest, size, media_type: media_type.to_owned(), is_layer, presence }
    }

    fn needs(blobs: Vec<Need>) -> Needs {
        let image = ImageKey { name: "app:v1".parse().unwrap(), platform: "linux/amd64".parse().unwrap() };
        Needs { image, blobs }
    }

    fn share(arriving: u64, unpacked: u64) -> Share {
        Share { arriving, unpacked }
    }

    #[test]
    fn what_is_there_takes_nothing_and_the_rest_is_fetched_and_unpacked() {
        let nowhere = Presence::default();
        let all = needs(vec![
            need(100, "application/vnd.oci.image.config.v1+json", nowhere),
            need(10 * MIB, GZIP, nowhere),
            need(20 * MIB, GZIP, Presence { elsewhere: true, ..nowhere }),
            need(30 * MIB, GZIP, Presence { here: true, ..nowhere }),
            need(40 * MIB, GZIP, Presence { begun_here: 15 * MIB, ..nowhere }),
            need(50 * MIB, GZIP, Presence { begun_elsewhere: 15 * MIB, ..nowhere }),
            need(60 * MIB, "application/vnd.docker.image.rootfs.diff.tar", nowhere),
        ]);
        let fetched = (10 + 25 + 35 + 60) * MIB + BLOCK;
        let without = Takes { store: share(fetched, 0), runtime: Share::default() };
        assert_eq!(takes(&all, false, false), without);
        assert_eq!(takes(&all, false, true), without);
        let unpacked = 3 * (10 + 30 + 40 + 50) * MIB + 60 * MIB;
        assert_eq!(takes(&all, true, false), Takes { store: share(fetched, unpacked), ..without });
        assert_eq!(
            takes(&all, true, true),
            Takes {
                store: share(25 * MIB + BLOCK, 0),
                // What the store has, or has begun, is copied.
                runtime: share((10 + 35 + 60) * MIB, unpacked + 70 * MIB),
            }
        );
    }

    #[test]
    fn the_message_has_the_numbers() {
        let gib = 1 << 30;
        let space = Space { free: 34 * gib / 10, size: 29 * gib };
        let percent = |percent| DiskReserve { percent: Some(percent), bytes: None };
        let refused =
            |share, reserve, taken| check(share, space, reserve, taken, "the disk of /x").unwrap_err().why;
        assert_eq!(
            refused(share(400 * MIB, 828 * MIB), percent(10), 0),
            "it needs 1.2 GiB on the disk of /x (400.0 MiB to fetch, about 828.0 MiB to unpack it), where 3.4 GiB are free \
             and 2.9 GiB of them are kept free (10%); free some space, or lower diskReserve"
        );
        assert_eq!(
            refused(share(3 * gib, 0), DiskReserve::default(), gib),
            "it needs 3.0 GiB on the disk of /x, where 3.4 GiB are free; 1.0 GiB more go to images that are being fetched; \
             free some space, or give the node a larger disk"
        );
        // Both hold: the larger counts.
        let both = DiskReserve { percent: Some(1), bytes: Some(3 << 30) };
        assert!(refused(share(gib, 0), both, 0).contains("3.0 GiB of them are kept free;"));
        assert_eq!(check(share(400 * MIB, 0), space, percent(10), 0, "x"), Ok(()));
        let passes =
            |taken| check(share(gib, 0), space, DiskReserve::default(), taken, "x").unwrap_err().passes;
        assert!(
            passes(3 * gib)
                && check(share(4 * gib, 0), space, percent(1), gib, "x").is_err_and(|lack| !lack.passes)
        );
        assert_eq!(check(share(0, 0), space, percent(99), 0, "x"), Ok(()), "what needs nothing always fits");
    }

    #[test]
    fn numbers_are_readable() {
        for (count, text) in
            [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB"), (MIB - 20, "1.0 MiB"), (3 << 29, "1.5 GiB")]
        {
            assert_eq!(bytes(count), text);
        }
    }

    /// On a real disk: two that fit one by one do not fit together, and the second fits when the first has ended.
    #[test]
    fn what_is_promised_is_promised_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut disks = Disks::new(folder.path(), None);
        disks.runtime = None;
        let disks = Arc::new(disks);
        let half = Space::of(folder.path()).unwrap().free / 5 * 3;
        let large = needs(vec![need(half, GZIP, Presence::default())]);
        let (one, two) = (Arc::new(Progress::default()), Arc::new(Progress::default()));
        let first = Ticket::new(&disks, &one, false);
        let second = Ticket::new(&disks, &two, false);
        first.admit(&large).unwrap();
        first.admit(&large).expect("asked again, it does not stand in its own way");
        let why = second.admit(&large).unwrap_err();
        assert!(why.contains("images that are being fetched"), "{why}");
        let refused = second.refused().unwrap();
        assert!(refused.passes, "it would fit alone");
        let lacks = refused.takes;
        assert!(!disks.have_room_for(&lacks) && disks.are_crowded_for(&lacks));
        drop(first);
        assert!(disks.have_room_for(&lacks));
        second.admit(&large).unwrap();
        // All has come, as far as this one goes: what it took is not free any more anyway.
        drop(two);
        assert!(disks.have_room_for(&lacks));
        drop(second);
        disks.keep_free(DiskReserve { percent: Some(99), bytes: None });
        assert!(!disks.have_room_for(&lacks) && !disks.are_crowded_for(&lacks));
    }

    proptest! {
        #[test]
        fn what_is_admitted_leaves_what_is_to_be_kept_free(
            free in 0u64..1 << 40, used in 0u64..1 << 40, arriving in 0u64..1 << 40, unpacked in 0u64..1 << 40,
            percent in prop::option::of(0i32..100), reserved in prop::option::of(0i64..1 << 40), taken in 0u64..1 << 40,
        ) {
            let space = Space { free, size: free + used };
            let reserve = DiskReserve { percent, bytes: reserved };
            if check(share(arriving, unpacked), space, reserve, taken, "x").is_ok() && arriving + unpacked > 0 {
                let left = free.checked_sub(arriving + unpacked + taken);
                prop_assert!(left.is_some());
                let left = left.unwrap();
                prop_assert!(left >= u64::try_from(reserved.unwrap_or(0)).unwrap());
                prop_assert!(left >= space.size / 100 * u64::try_from(percent.unwrap_or(0)).unwrap());
            }
        }
    }
}
