//! Commands on a disk that loses power at any write, rename or sync.

use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::{
    disk::{Disk, Lie, Mounted},
    figures::Figures,
    kills::{nothing_leaks, opens},
    look::Look,
    model::{Names, Outcome, judge},
    player, private,
    settings::Settings,
    shop::{Archive, Shop},
};

/// After so many cuts a disk is given up, and a new one is taken: a store's making is to be hit too.
const CUTS: u64 = 20;
/// A cut comes after fewer changes of the disk than this. A command makes up to some hundred.
const CHANGES: u64 = 700;

#[test]
fn no_power_cut_loses_an_image_or_harms_a_blob() {
    private::run("power::cuts");
}

/// The counterproof: where a sync does nothing, this disk does lose images, and the test sees it.
#[test]
fn without_syncs_images_are_lost() {
    private::run("power::cuts_of_disks_that_lie");
}

#[test]
#[ignore = "run by a test above, in a mount namespace"]
fn cuts() {
    if !private::is_inside() {
        return;
    }
    let settings = Settings::of("LARDER_TORTURE_CUTS", 25);
    println!("torture: {} power cuts, seed {}", settings.count, settings.seed);
    let figures = Figures::new();
    cut(&settings, &Shop::open(), &figures, Lie::None).unwrap_or_else(|error| panic!("{error}"));
    println!("{figures}");
}

#[test]
#[ignore = "run by a test above, in a mount namespace"]
fn cuts_of_disks_that_lie() {
    if !private::is_inside() {
        return;
    }
    let settings = Settings { count: 500, ..Settings::of("LARDER_TORTURE_CUTS", 0) };
    let shop = Shop::open();
    for lie in [Lie::Files, Lie::Folders] {
        let figures = Figures::new();
        let error = cut(&settings, &shop, &figures, lie).unwrap_err();
        println!("{lie:?} not synced: {}", error.lines().next().unwrap_or_default());
    }
}

fn cut(settings: &Settings, shop: &Shop, figures: &Figures, lie: Lie) -> Result<(), String> {
    let mut random = settings.random();
    let mut cuts = 0;
    while cuts < settings.count {
        let many = CUTS.min(settings.count - cuts);
        let mut boots = Boots {
            shop,
            figures,
            store: PathBuf::new(),
            out: PathBuf::new(),
            look: Look::new(Path::new("")),
            names: Names::new(),
            archives: shop.archives.clone(),
            random: &mut random,
        };
        boots
            .run(many, lie)
            .map_err(|error| format!("seed {}, cut {cuts} and after: {error}", settings.seed))?;
        cuts += many;
        figures.add("disks", 1);
    }
    Ok(())
}

/// One disk, from its first boot to its last.
struct Boots<'a> {
    shop: &'a Shop,
    figures: &'a Figures,
    store: PathBuf,
    out: PathBuf,
    look: Look,
    names: Names,
    archives: Vec<Archive>,
    random: &'a mut Rng,
}

impl Boots<'_> {
    fn run(&mut self, cuts: u64, lie: Lie) -> Result<(), String> {
        let folder = self.shop.scratch.folder("disk").unwrap();
        (self.store, self.out) = (folder.join("store"), folder.join("out"));
        self.look = Look::new(&self.store);
        let mut disk = Disk::new();
        for cut in 0..cuts {
            let mounted = Mounted::new(disk, &folder);
            std::fs::create_dir_all(&self.out).unwrap();
            // The folder for archives is the test's own: it is not to be lost.
            std::fs::File::open(&folder).unwrap().sync_all().unwrap();
            mounted.disk().lie(lie);
            mounted.disk().arm(self.random.u64(..CHANGES));
            let result = self.until_the_cut(&mounted);
            disk = mounted.unmount();
            let played = result?;
            disk.cut(self.random);
            let mounted = Mounted::new(disk, &folder);
            self.after_the_cut(&played)
                .map_err(|error| format!("cut {cut} of a disk: {error}\n{played:#?}"))?;
            disk = mounted.unmount();
        }
        let mounted = Mounted::new(disk, &folder);
        if self.store.join("oci-layout").exists() {
            nothing_leaks(self.shop, &self.store, &mut self.look, self.figures);
        }
        self.figures.add("blobs hashed", self.look.hashes);
        drop(mounted.unmount());
        Ok(())
    }

    /// Plays until there is no power, and gives what was played last.
    fn until_the_cut(&mut self, mounted: &Mounted) -> Result<Vec<crate::model::Played>, String> {
        loop {
            let mut turns = player::turns(self.shop, &self.archives, &self.out, self.random);
            // What a command that is killed has done is not on the disk yet, nor reported.
            turns.iter_mut().flatten().for_each(|turn| turn.kill = None);
            let is_dead = || mounted.disk().is_dead();
            let mut played = player::play(self.shop, &self.store, turns, self.figures, &is_dead);
            self.figures.add("rounds", 1);
            if is_dead() {
                // Whatever they say: the disk has failed them.
                for one in played.iter_mut().filter(|one| one.outcome == Outcome::Refused) {
                    one.outcome = Outcome::Killed;
                }
                return Ok(played);
            }
            let seen = self.look.look();
            if mounted.disk().is_dead() {
                return Ok(played);
            }
            let seen = seen?;
            let wrong = judge(&self.names, &played, &seen.names, self.shop.names());
            if !wrong.is_empty() {
                return Err(format!("without a cut: {}\n{played:#?}", wrong.join("\n")));
            }
            self.keep(&played);
            self.names = seen.names;
        }
    }

    fn after_the_cut(&mut self, played: &[crate::model::Played]) -> Result<(), String> {
        opens(self.shop, &self.store)?;
        self.look.forget();
        let seen = self.look.look()?;
        let wrong = judge(&self.names, played, &seen.names, self.shop.names());
        if !wrong.is_empty() {
            return Err(wrong.join("\n"));
        }
        self.keep(played);
        if let Some(lost) = self.archives.iter().find(|archive| !archive.path.exists()) {
            return Err(format!("{} was saved, and is gone", lost.path.display()));
        }
        self.names = seen.names;
        self.figures.add("power cuts", 1);
        Ok(())
    }

    /// Archives that were reported, or are there: they must be whole, and stay.
    fn keep(&mut self, played: &[crate::model::Played]) {
        for one in played {
            let archive = one.planned.written(self.shop);
            self.archives
                .extend(archive.filter(|archive| one.outcome == Outcome::Done || archive.path.exists()));
        }
    }
}
