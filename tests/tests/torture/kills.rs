//! Commands that are killed at any moment, while others run on the same store.

use std::path::{Path, PathBuf};

use larder_store::{CollectOptions, Store};

use crate::{
    figures::Figures,
    look::{Look, files},
    model::{Names, judge},
    player,
    settings::Settings,
    shop::{Archive, Shop},
};

/// A store is given up, emptied and begun anew after so many rounds: its making is to be hit by kills too.
const ROUNDS: u64 = 25;

#[test]
fn no_kill_loses_an_image_harms_a_blob_or_leaves_anything_for_ever() {
    let settings = Settings::of("LARDER_TORTURE_KILLS", 40);
    println!("torture: {} kills, seed {}", settings.count, settings.seed);
    let shop = Shop::open();
    let mut random = settings.random();
    let figures = Figures::new();
    let mut stores = 0;
    while figures.kills() < settings.count {
        let store = shop.scratch.path().join(format!("store-{stores}"));
        one_store(&shop, &store, &settings, &mut random, &figures);
        std::fs::remove_dir_all(&store).unwrap();
        stores += 1;
    }
    assert_eq!(
        files(&shop.scratch.path().join("tmp")),
        Vec::<PathBuf>::new(),
        "left in the folder for temporary files"
    );
    figures.add("stores", stores);
    println!("{figures}");
}

fn one_store(shop: &Shop, store: &Path, settings: &Settings, random: &mut fastrand::Rng, figures: &Figures) {
    let out = shop.scratch.folder("out").unwrap();
    let mut look = Look::new(store);
    let mut archives = shop.archives.clone();
    let mut before = Names::new();
    for round in 0..ROUNDS {
        if figures.kills() >= settings.count {
            break;
        }
        let turns = player::turns(shop, &archives, &out, random);
        let played = player::play(shop, store, turns, figures, &|| false);
        let wrong = |what: String| -> ! {
            panic!("{}: seed {}, round {round}: {what}\n{played:#?}", store.display(), settings.seed)
        };
        opens(shop, store).unwrap_or_else(|error| wrong(error));
        let seen = look.look().unwrap_or_else(|error| wrong(error));
        let judged = judge(&before, &played, &seen.names, shop.names());
        if !judged.is_empty() {
            wrong(judged.join("\n"));
        }
        archives.extend(played.iter().filter_map(|one| one.planned.written(shop)).filter(is_there));
        before = seen.names;
        figures.add("rounds", 1);
    }
    nothing_leaks(shop, store, &mut look, figures);
    // Between a link and a rename, archives have a hidden name: few kills hit that.
    let hidden =
        |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    figures.add("hidden archives that kills left", files(&out).iter().filter(hidden).count() as u64);
    std::fs::remove_dir_all(&out).unwrap();
    figures.add("blobs hashed", look.hashes);
}

/// An archive is there as a whole or not at all, so it can be loaded from now on.
fn is_there(archive: &Archive) -> bool {
    archive.path.exists()
}

/// What a person would find who comes along now.
pub fn opens(shop: &Shop, store: &Path) -> Result<(), String> {
    let ran = shop.larder(store).arg("images").output().map_err(|error| error.to_string())?;
    if ran.status.success() && ran.stderr.is_empty() {
        return Ok(());
    }
    Err(format!("larder images: {}: {}", ran.status, String::from_utf8_lossy(&ran.stderr)))
}

/// After a collection that spares nobody's leftovers, only what images need is there; and after their removal, nothing.
pub fn nothing_leaks(shop: &Shop, store: &Path, look: &mut Look, figures: &Figures) {
    let everything = CollectOptions { dead_lease_age: std::time::Duration::ZERO };
    let collected = Store::open(store).unwrap().collect(&everything).unwrap();
    assert_eq!(collected.warnings, [""; 0]);
    figures.add(
        "blobs and partial blobs collected at the end",
        collected.blobs.len() as u64 + collected.partials,
    );
    look.forget();
    let seen = look.look().unwrap();
    assert_eq!(look.surplus(&seen), Vec::<PathBuf>::new(), "left for ever");
    let ran = shop.larder(store).args(["prune", "-a", "-f"]).output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    let seen = look.look().unwrap();
    assert_eq!((seen.names.len(), seen.needed.len()), (0, 0));
    assert_eq!(look.surplus(&seen), Vec::<PathBuf>::new(), "left by prune -a");
}
