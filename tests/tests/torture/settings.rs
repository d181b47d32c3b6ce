//! How long, and from which seed: set by `cargo xtask torture`.

use fastrand::Rng;

/// What a run is made of.
pub struct Settings {
    /// How many kills, or power cuts.
    pub count: u64,
    /// Where all chance comes from. What the machine's clock adds to it no seed can repeat: which instant a kill hits.
    pub seed: u64,
}

impl Settings {
    /// From the environment; a short run from a seed of its own otherwise.
    pub fn of(count: &str, short: u64) -> Self {
        let number = |name: &str| {
            std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
        };
        Self {
            count: number(count).unwrap_or(short),
            seed: number("LARDER_TORTURE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000)),
        }
    }

    pub fn random(&self) -> Rng {
        Rng::with_seed(self.seed)
    }
}
