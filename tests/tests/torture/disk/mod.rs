//! A disk that keeps, over a power cut, what a file system must keep and nothing else, and that can be full at any byte.
//!
//! POSIX promises little: the bytes of a file are on the disk once `fsync` or `fdatasync` of that file has returned, and the
//! names in a folder once `fsync` of that folder has. Here nothing more is kept than that, unless chance will have it: of
//! what was not synced, each page of a file and each name in a folder is as it was last, as it was when it was last synced,
//! or, a name, as it was at any time between. Every real file system keeps more, and keeps it in some order.

mod mount;

pub use mount::Mounted;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    time::SystemTime,
};

use fastrand::Rng;

pub type Number = u64;

pub const ROOT: Number = 1;
const PAGE: usize = 4096;
/// What a name takes of the space, in bytes.
pub const NAME: u64 = 64;

/// Why the disk will not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    Exists,
    NotEmpty,
    NotAFolder,
    IsAFolder,
    Full,
    /// There is no power.
    Dead,
}

type Result<T> = std::result::Result<T, Refusal>;

/// A file or a folder.
#[derive(Debug, Clone)]
pub struct Node {
    pub content: Content,
    pub mode: u16,
    pub changed: SystemTime,
}

#[derive(Debug, Clone)]
pub enum Content {
    File {
        bytes: Vec<u8>,
        /// What it held when it was last synced, if it has changed since.
        synced: Option<Vec<u8>>,
    },
    Folder {
        names: BTreeMap<OsString, Number>,
        /// What names stood for since the folder was last synced, the oldest first: for those that have changed.
        past: BTreeMap<OsString, Vec<Option<Number>>>,
    },
}

/// The whole disk.
#[derive(Debug, Clone)]
pub struct Disk {
    nodes: BTreeMap<Number, Node>,
    next: Number,
    /// After how many changes the power goes.
    left: Option<u64>,
    dead: bool,
    /// The bytes that are free, where that is limited.
    space: Option<u64>,
    lowest: u64,
    lie: Lie,
}

/// What a disk says it has kept, and has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    None,
    /// The bytes of files.
    Files,
    /// The names in folders.
    Folders,
}

impl Disk {
    pub fn new() -> Self {
        let root = Node::folder(0o755);
        Self {
            nodes: [(ROOT, root)].into(),
            next: ROOT + 1,
            left: None,
            dead: false,
            space: None,
            lowest: 0,
            lie: Lie::None,
        }
    }

    /// The power will go before the change after so many.
    pub fn arm(&mut self, changes: u64) {
        self.left = Some(changes);
    }

    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Has it lie from now on.
    pub fn lie(&mut self, lie: Lie) {
        self.lie = lie;
    }

    /// Leaves so many bytes free from now on.
    pub fn limit(&mut self, space: Option<u64>) {
        self.space = space;
        self.lowest = space.unwrap_or_default();
    }

    /// The least that was free since it was limited.
    pub fn lowest(&self) -> u64 {
        self.lowest
    }

    /// Nothing works without power.
    pub fn alive(&self) -> Result<()> {
        if self.dead { Err(Refusal::Dead) } else { Ok(()) }
    }

    fn change(&mut self) -> Result<()> {
        self.alive()?;
        if let Some(left) = &mut self.left {
            if *left == 0 {
                self.dead = true;
                return Err(Refusal::Dead);
            }
            *left -= 1;
        }
        Ok(())
    }

    fn take_space(&mut self, bytes: u64) -> Result<()> {
        if let Some(space) = &mut self.space {
            *space = space.checked_sub(bytes).ok_or(Refusal::Full)?;
            self.lowest = self.lowest.min(*space);
        }
        Ok(())
    }

    fn give_space(&mut self, bytes: u64) {
        self.space = self.space.map(|space| space + bytes);
    }

    pub fn node(&self, number: Number) -> Result<&Node> {
        self.alive()?;
        self.nodes.get(&number).ok_or(Refusal::NotFound)
    }

    fn node_mut(&mut self, number: Number) -> Result<&mut Node> {
        self.nodes.get_mut(&number).ok_or(Refusal::NotFound)
    }

    pub fn find(&self, folder: Number, name: &OsStr) -> Result<Number> {
        self.names(folder)?.get(name).copied().ok_or(Refusal::NotFound)
    }

    pub fn names(&self, folder: Number) -> Result<&BTreeMap<OsString, Number>> {
        match &self.node(folder)?.content {
            Content::Folder { names, .. } => Ok(names),
            Content::File { .. } => Err(Refusal::NotAFolder),
        }
    }

    pub fn make(&mut self, folder: Number, name: &OsStr, node: Node) -> Result<Number> {
        self.change()?;
        if self.names(folder)?.contains_key(name) {
            return Err(Refusal::Exists);
        }
        self.take_space(NAME)?;
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.set_name(folder, name, Some(number))?;
        Ok(number)
    }

    /// A name stands for something else, and the folder remembers for what it stood.
    fn set_name(&mut self, folder: Number, name: &OsStr, to: Option<Number>) -> Result<()> {
        let node = self.node_mut(folder)?;
        node.changed = SystemTime::now();
        let Content::Folder { names, past } = &mut node.content else { return Err(Refusal::NotAFolder) };
        let before = match to {
            Some(number) => names.insert(name.to_owned(), number),
            None => names.remove(name),
        };
        past.entry(name.to_owned()).or_default().push(before);
        Ok(())
    }

    pub fn remove(&mut self, folder: Number, name: &OsStr) -> Result<()> {
        self.change()?;
        let number = self.find(folder, name)?;
        if let Content::Folder { names, .. } = &self.node(number)?.content
            && !names.is_empty()
        {
            return Err(Refusal::NotEmpty);
        }
        self.set_name(folder, name, None)?;
        let size = self.node(number)?.size();
        self.give_space(NAME + size);
        Ok(())
    }

    pub fn rename(&mut self, folder: Number, name: &OsStr, to: Number, new: &OsStr) -> Result<()> {
        self.change()?;
        let number = self.find(folder, name)?;
        match self.find(to, new) {
            Ok(old) => {
                let size = self.node(old)?.size();
                self.give_space(NAME + size);
            }
            // Where there was no name, room for one must be there before the old one goes.
            Err(Refusal::NotFound) => {
                self.take_space(NAME)?;
                self.give_space(NAME);
            }
            Err(error) => return Err(error),
        }
        self.set_name(to, new, Some(number))?;
        self.set_name(folder, name, None)
    }

    pub fn read(&self, number: Number, offset: usize, size: usize) -> Result<&[u8]> {
        let Content::File { bytes, .. } = &self.node(number)?.content else {
            return Err(Refusal::IsAFolder);
        };
        let begin = offset.min(bytes.len());
        Ok(&bytes[begin..(begin + size).min(bytes.len())])
    }

    /// Writes what there is room for; how much that was.
    pub fn write(&mut self, number: Number, offset: usize, data: &[u8]) -> Result<usize> {
        self.change()?;
        let size = usize::try_from(self.node(number)?.size()).unwrap_or(usize::MAX);
        let end = offset + data.len();
        let growth = end.saturating_sub(size);
        let room =
            self.space.map_or(growth, |space| growth.min(usize::try_from(space).unwrap_or(usize::MAX)));
        let length = data.len() - (growth - room);
        if length == 0 && !data.is_empty() {
            return Err(Refusal::Full);
        }
        self.take_space(room as u64)?;
        let bytes = self.changing(number)?;
        if bytes.len() < offset + length {
            bytes.resize(offset + length, 0);
        }
        bytes[offset..offset + length].copy_from_slice(&data[..length]);
        Ok(length)
    }

    pub fn resize(&mut self, number: Number, size: u64) -> Result<()> {
        self.change()?;
        let old = self.node(number)?.size();
        self.take_space(size.saturating_sub(old))?;
        self.give_space(old.saturating_sub(size));
        self.changing(number)?.resize(usize::try_from(size).unwrap_or(usize::MAX), 0);
        Ok(())
    }

    /// Modes and times. They are not worth losing: nothing of ours depends on them.
    pub fn set(&mut self, number: Number, mode: Option<u16>, changed: Option<SystemTime>) -> Result<()> {
        self.change()?;
        let node = self.node_mut(number)?;
        node.mode = mode.unwrap_or(node.mode);
        node.changed = changed.unwrap_or(node.changed);
        Ok(())
    }

    /// The bytes of a file that is about to change.
    fn changing(&mut self, number: Number) -> Result<&mut Vec<u8>> {
        let node = self.node_mut(number)?;
        node.changed = SystemTime::now();
        let Content::File { bytes, synced } = &mut node.content else { return Err(Refusal::IsAFolder) };
        if synced.is_none() {
            *synced = Some(bytes.clone());
        }
        Ok(bytes)
    }

    /// Everything that is in the file or folder now is kept.
    pub fn sync(&mut self, number: Number) -> Result<()> {
        self.change()?;
        let lie = self.lie;
        match &mut self.node_mut(number)?.content {
            Content::File { synced, .. } if lie != Lie::Files => *synced = None,
            Content::Folder { past, .. } if lie != Lie::Folders => past.clear(),
            _ => {}
        }
        Ok(())
    }

    /// The power goes, and comes back: what is left is what the disk had to keep, and what chance has kept besides.
    pub fn cut(&mut self, random: &mut Rng) {
        let mut reached = BTreeMap::new();
        let mut open = vec![ROOT];
        while let Some(number) = open.pop() {
            let Some(mut node) = self.nodes.remove(&number) else { continue };
            match &mut node.content {
                Content::File { bytes, synced } => {
                    if let Some(synced) = synced.take() {
                        *bytes = torn(bytes, &synced, random);
                    }
                }
                Content::Folder { names, past } => {
                    for (name, mut before) in std::mem::take(past) {
                        before.push(names.remove(&name));
                        if let Some(number) = before[random.usize(..before.len())] {
                            names.insert(name, number);
                        }
                    }
                    open.extend(names.values());
                }
            }
            reached.insert(number, node);
        }
        self.nodes = reached;
        self.dead = false;
        self.left = None;
    }
}

impl Node {
    pub fn file(mode: u16) -> Self {
        // Of a new file, nothing is kept.
        let content = Content::File { bytes: Vec::new(), synced: Some(Vec::new()) };
        Self { content, mode, changed: SystemTime::now() }
    }

    pub fn folder(mode: u16) -> Self {
        let content = Content::Folder { names: BTreeMap::new(), past: BTreeMap::new() };
        Self { content, mode, changed: SystemTime::now() }
    }

    pub fn size(&self) -> u64 {
        match &self.content {
            Content::File { bytes, .. } => bytes.len() as u64,
            Content::Folder { .. } => 0,
        }
    }
}

/// A file that was not synced: of any length between, each page old or new.
fn torn(new: &[u8], old: &[u8], random: &mut Rng) -> Vec<u8> {
    let (short, long) = (new.len().min(old.len()), new.len().max(old.len()));
    let length = [new.len(), old.len(), random.usize(short..=long)][random.usize(..3)];
    // Often all or nothing; else a mixture.
    let odds = [0, 50, 100][random.usize(..3)];
    let mut bytes = vec![0; length];
    for (number, page) in bytes.chunks_mut(PAGE).enumerate() {
        let from = if random.u8(..100) < odds { new } else { old };
        // What neither has reads as zeros.
        let there = from.get(number * PAGE..).unwrap_or_default();
        let size = there.len().min(page.len());
        page[..size].copy_from_slice(&there[..size]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    /// What a file may hold after cuts; `None` where its name is gone.
    fn outcomes(prepare: impl Fn(&mut Disk)) -> std::collections::BTreeSet<Option<Vec<u8>>> {
        let all = (0..300).map(|seed| {
            let mut disk = Disk::new();
            prepare(&mut disk);
            disk.cut(&mut Rng::with_seed(seed));
            let number = disk.find(ROOT, name("new")).ok()?;
            Some(disk.read(number, 0, 100).unwrap().to_vec())
        });
        all.collect()
    }

    fn write(disk: &mut Disk, text: &str, bytes: &[u8], synced: bool) -> Number {
        let number = disk.make(ROOT, name(text), Node::file(0o644)).unwrap();
        assert_eq!(disk.write(number, 0, bytes), Ok(bytes.len()));
        if synced {
            disk.sync(number).unwrap();
        }
        number
    }

    #[test]
    fn only_what_is_synced_is_kept() {
        let kept = outcomes(|disk| {
            write(disk, "new", b"abc", true);
            disk.sync(ROOT).unwrap();
        });
        assert_eq!(kept, [Some(b"abc".to_vec())].into());
        let lost = outcomes(|disk| {
            write(disk, "new", b"abc", true);
        });
        assert_eq!(lost, [None, Some(b"abc".to_vec())].into(), "the name");
        let torn = outcomes(|disk| {
            write(disk, "new", b"abc", false);
            disk.sync(ROOT).unwrap();
        });
        assert!(torn.contains(&Some(Vec::new())) && torn.contains(&Some(b"abc".to_vec())), "{torn:?}");
        assert!(torn.contains(&Some(vec![0; 3])) && !torn.contains(&None), "{torn:?}");
    }

    #[test]
    fn a_file_that_replaces_another_leaves_one_of_them() {
        let outcomes = outcomes(|disk| {
            write(disk, "new", b"old", true);
            disk.sync(ROOT).unwrap();
            write(disk, "temporary", b"new", true);
            disk.rename(ROOT, name("temporary"), ROOT, name("new")).unwrap();
        });
        assert_eq!(outcomes, [Some(b"old".to_vec()), Some(b"new".to_vec())].into());
    }

    #[test]
    fn without_power_nothing_works_and_without_space_nothing_is_written() {
        let mut disk = Disk::new();
        disk.limit(Some(NAME + 4));
        let number = write(&mut disk, "file", b"ab", false);
        assert_eq!(disk.write(number, 2, b"cdef"), Ok(2));
        assert_eq!(disk.write(number, 4, b"ef"), Err(Refusal::Full));
        assert_eq!(disk.write(number, 0, b"xy"), Ok(2), "what is there can be written anew");
        assert_eq!(disk.make(ROOT, name("more"), Node::file(0o644)), Err(Refusal::Full));
        disk.remove(ROOT, name("file")).unwrap();
        disk.make(ROOT, name("more"), Node::file(0o644)).unwrap();
        disk.arm(0);
        assert_eq!(disk.sync(number), Err(Refusal::Dead));
        assert_eq!(disk.find(ROOT, name("more")), Err(Refusal::Dead));
    }
}
