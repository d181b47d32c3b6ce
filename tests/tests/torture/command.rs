//! Commands by chance, and what they do to which name.

use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::shop::{Archive, Id, Shop};

/// What a command does to a name: gives it an image, or takes it away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub name: String,
    pub to: Option<Id>,
}

/// One command.
#[derive(Debug, Clone)]
pub struct Planned {
    pub verb: &'static str,
    pub args: Vec<String>,
    /// What it has done when it ends with success. One that is killed may have done any part of it.
    pub effects: Vec<Effect>,
    /// Names that must be there for it.
    pub needs: Vec<String>,
    /// The archive that it writes: whole if it is there at all.
    pub output: Option<PathBuf>,
}

impl Planned {
    /// A command by chance. `archives` are those that can be loaded, `out` the folder for new ones.
    pub fn any(shop: &Shop, archives: &[Archive], out: &Path, random: &mut Rng) -> Self {
        match random.u8(..100) {
            0..28 => Self::pull(shop, random),
            28..48 => Self::load(&archives[random.usize(..archives.len())]),
            48..62 => Self::tag(shop, random),
            62..70 => Self::save(shop, out, random),
            70..84 => Self::remove(shop, random),
            84..93 => Self::prune(shop, random),
            _ => Self::new(["images", "df"][random.usize(..2)], Vec::new()),
        }
    }

    fn new(verb: &'static str, args: Vec<&str>) -> Self {
        let args = std::iter::once(verb).chain(args).map(str::to_owned).collect();
        Self { verb, args, effects: Vec::new(), needs: Vec::new(), output: None }
    }

    fn pull(shop: &Shop, random: &mut Rng) -> Self {
        let images = some(&shop.images, random);
        let names = images.iter().map(|(name, _)| name.as_str());
        let mut planned = Self::new("pull", std::iter::once("-q").chain(names).collect());
        planned.effects = images.iter().map(|(name, id)| gives(name, id)).collect();
        planned
    }

    fn load(archive: &Archive) -> Self {
        let mut planned = Self::new("load", vec!["-q", "-i", text(&archive.path)]);
        planned.effects = archive.names.iter().map(|(name, id)| gives(name, id)).collect();
        planned
    }

    fn tag(shop: &Shop, random: &mut Rng) -> Self {
        let (name, id) = &shop.images[random.usize(..shop.images.len())];
        let further = &shop.further[random.usize(..shop.further.len())];
        let mut planned = Self::new("tag", vec![name, further]);
        planned.effects = vec![gives(further, id)];
        planned.needs = vec![name.clone()];
        planned
    }

    fn save(shop: &Shop, out: &Path, random: &mut Rng) -> Self {
        let images = some(&shop.images, random);
        let extension = ["tar", "tar.gz", "tar.zst"][random.usize(..3)];
        let path = out.join(format!("{:016x}.{extension}", random.u64(..)));
        let names = images.iter().map(|(name, _)| name.as_str());
        let mut planned = Self::new("save", ["-o", text(&path)].into_iter().chain(names).collect());
        planned.needs = images.iter().map(|(name, _)| name.clone()).collect();
        planned.output = Some(path);
        planned
    }

    fn remove(shop: &Shop, random: &mut Rng) -> Self {
        let names: Vec<&str> = shop.names().collect();
        let name = names[random.usize(..names.len())];
        let mut planned = Self::new("rm", vec![name]);
        planned.effects = vec![takes(name)];
        planned.needs = vec![name.to_owned()];
        planned
    }

    fn prune(shop: &Shop, random: &mut Rng) -> Self {
        match random.u8(..4) {
            // Images without a name alone, and what nothing needs.
            0..2 => Self::new("prune", vec!["-f"]),
            2 => {
                let mut planned = Self::new("prune", vec!["-a", "-f", "--except", "further/name"]);
                planned.effects = shop.images.iter().map(|(name, _)| takes(name)).collect();
                planned
            }
            _ => {
                let mut planned = Self::new("prune", vec!["-a", "-f"]);
                planned.effects = shop.names().map(takes).collect();
                planned
            }
        }
    }

    /// What the archive that it writes holds.
    pub fn written(&self, shop: &Shop) -> Option<Archive> {
        let path = self.output.clone()?;
        let names = shop.images.iter().filter(|(name, _)| self.needs.contains(name)).cloned().collect();
        Some(Archive { path, names })
    }

    /// Whether what it says is what it may say where a name that it needs was not there, or went meanwhile.
    pub fn is_told_absence(&self, message: &str) -> bool {
        let known = ["No such image", "is not in the store", "changed while it was to be removed"];
        !self.needs.is_empty() && known.iter().any(|words| message.contains(words))
    }
}

fn gives(name: &str, id: &Id) -> Effect {
    Effect { name: name.to_owned(), to: Some(id.clone()) }
}

fn takes(name: &str) -> Effect {
    Effect { name: name.to_owned(), to: None }
}

/// One or two of them.
fn some<'a, T>(all: &'a [T], random: &mut Rng) -> Vec<&'a T> {
    let first = random.usize(..all.len());
    let second = random.usize(..all.len());
    let both = random.u8(..4) == 0 && first != second;
    std::iter::once(&all[first]).chain(both.then(|| &all[second])).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
