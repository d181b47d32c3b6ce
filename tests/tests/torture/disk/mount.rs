//! The disk as the kernel sees it, by way of FUSE.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::{Content, Disk, Node, Number, Refusal};

/// All changes come through the kernel: what it knows stays true.
const LASTING: Duration = Duration::from_secs(3600);

/// A disk that is mounted; unmounted when it goes.
pub struct Mounted {
    disk: Arc<Mutex<Disk>>,
    session: BackgroundSession,
}

impl Mounted {
    /// Mounts it, in a mount namespace of our own.
    pub fn new(disk: Disk, folder: &Path) -> Self {
        let disk = Arc::new(Mutex::new(disk));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("larder-torture".to_owned()), MountOption::NoAtime];
        let served = Served { disk: Arc::clone(&disk), open: Mutex::default() };
        let session = fuser::spawn_mount(served, folder, &config).unwrap();
        Self { disk, session }
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    /// Unmounts it, and gives it back.
    pub fn unmount(self) -> Disk {
        self.session.umount_and_join().unwrap();
        std::mem::replace(&mut *self.disk.lock().unwrap(), Disk::new())
    }
}

/// What is in a folder.
type Listed = Vec<(OsString, Number, FileType)>;

struct Served {
    disk: Arc<Mutex<Disk>>,
    /// Folders that are being listed, as they were when that began.
    open: Mutex<BTreeMap<u64, Listed>>,
}

impl Served {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }
}

fn code(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::NotFound => Errno::ENOENT,
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
        Refusal::NotAFolder => Errno::ENOTDIR,
        Refusal::IsAFolder => Errno::EISDIR,
        Refusal::Full => Errno::ENOSPC,
        Refusal::Dead => Errno::EIO,
    }
}

fn kind(node: &Node) -> FileType {
    match node.content {
        Content::File { .. } => FileType::RegularFile,
        Content::Folder { .. } => FileType::Directory,
    }
}

fn attributes(number: Number, node: &Node) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: node.size(),
        blocks: node.size().div_ceil(512),
        atime: node.changed,
        mtime: node.changed,
        ctime: node.changed,
        crtime: node.changed,
        kind: kind(node),
        perm: node.mode,
        nlink: 1,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn mode(bits: u32) -> u16 {
    (bits & 0o7777) as u16
}

/// A number that this disk deals with in memory.
fn length(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn empty(result: Result<(), Refusal>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(refusal) => reply.error(code(refusal)),
    }
}

fn entry(disk: &Disk, result: Result<Number, Refusal>, reply: ReplyEntry) {
    match result.and_then(|number| Ok(attributes(number, disk.node(number)?))) {
        Ok(attributes) => reply.entry(&LASTING, &attributes, Generation(0)),
        Err(refusal) => reply.error(code(refusal)),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.disk();
        entry(&disk, disk.find(parent.0, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.disk().node(ino.0) {
            Ok(node) => reply.attr(&LASTING, &attributes(ino.0, node)),
            Err(refusal) => reply.error(code(refusal)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        bits: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        changed: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        let changed = changed.map(|time| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        });
        let result = size
            .map_or(Ok(()), |size| disk.resize(ino.0, size))
            .and_then(|()| disk.set(ino.0, bits.map(mode), changed))
            .and_then(|()| Ok(attributes(ino.0, disk.node(ino.0)?)));
        match result {
            Ok(attributes) => reply.attr(&LASTING, &attributes),
            Err(refusal) => reply.error(code(refusal)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, bits: u32, umask: u32, reply: ReplyEntry) {
        let mut disk = self.disk();
        let made = disk.make(parent.0, name, Node::folder(mode(bits & !umask)));
        entry(&disk, made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.disk().remove(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.disk().remove(parent.0, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        empty(self.disk().rename(parent.0, name, newparent.0, newname), reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk().alive() {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(refusal) => reply.error(code(refusal)),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        bits: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mut disk = self.disk();
        let made = disk.make(parent.0, name, Node::file(mode(bits & !umask)));
        match made.and_then(|number| Ok(attributes(number, disk.node(number)?))) {
            Ok(attributes) => {
                reply.created(&LASTING, &attributes, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(refusal) => reply.error(code(refusal)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().read(ino.0, length(offset), length(size.into())) {
            Ok(bytes) => reply.data(bytes),
            Err(refusal) => reply.error(code(refusal)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.disk().write(ino.0, length(offset), data) {
            Ok(written) => reply.written(u32::try_from(written).unwrap_or_default()),
            Err(refusal) => reply.error(code(refusal)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.disk().sync(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.disk().sync(ino.0), reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let disk = self.disk();
        let listed = disk.names(ino.0).map(|names| {
            let known = names
                .iter()
                .filter_map(|(name, number)| Some((name.clone(), *number, kind(disk.node(*number).ok()?))));
            known.collect::<Listed>()
        });
        match listed {
            Ok(listed) => {
                let mut open = self.open.lock().unwrap();
                let handle = open.last_key_value().map_or(1, |(last, _)| last + 1);
                open.insert(handle, listed);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(refusal) => reply.error(code(refusal)),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let open = self.open.lock().unwrap();
        let listed = open.get(&handle.0).map(Vec::as_slice).unwrap_or_default();
        for (place, (name, number, kind)) in listed.iter().enumerate().skip(length(offset)) {
            if reply.add(INodeNo(*number), place as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.open.lock().unwrap().remove(&handle.0);
        reply.ok();
    }
}
