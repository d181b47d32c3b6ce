//! The images that are measured.

use clap::ValueEnum;
use larder_tests::{Layer, MachineFiles, Pushed, Registry, kubernetes::images::busybox};

const MIB: usize = 1 << 20;

/// An image. Each has busybox below, so that pods can run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shape {
    /// 590 MiB in six layers, one file each.
    SixLayers,
    /// One layer of 500 MB, one file.
    OneLayer,
    /// 100 layers of 50 kB, one file each.
    SmallLayers,
    /// 100 MiB in five layers: thousands of this machine's files.
    ManyFiles,
}

impl Shape {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::SixLayers => "590 MiB in six layers",
            Self::OneLayer => "one layer of 500 MB",
            Self::SmallLayers => "100 layers of 50 kB",
            Self::ManyFiles => "100 MiB in five layers, many files",
        }
    }

    /// Makes and pushes it.
    pub(super) fn push(self, registry: &Registry) -> anyhow::Result<Pushed> {
        let random = |sizes: &[usize]| {
            sizes
                .iter()
                .zip(0..)
                .map(|(size, seed)| Layer::random(seed, *size))
                .collect::<Result<Vec<_>, _>>()
        };
        let layers = match self {
            Self::SixLayers => random(&[250, 150, 100, 50, 30, 10].map(|size| size * MIB))?,
            Self::OneLayer => random(&[500_000_000])?,
            Self::SmallLayers => random(&[50_000; 100])?,
            Self::ManyFiles => {
                let mut files = MachineFiles::list()?;
                [50, 25, 15, 7, 3]
                    .into_iter()
                    .map(|size| files.layer(size << 20))
                    .collect::<Result<Vec<_>, _>>()?
            }
        };
        let name = self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        Ok(registry.push(&busybox(&layers)?, &format!("bench/{name}"), "v1")?)
    }
}
