//! What programs need in order to run: their loader and their libraries, as their ELF headers name them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use object::Endianness;
use object::elf::{DT_NEEDED, EM_AARCH64, EM_X86_64, FileHeader64, SHT_SYMTAB};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};

/// A processor architecture that images are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `x86_64`.
    Amd64,
    /// `aarch64`.
    Arm64,
}

impl Architecture {
    /// Its name in image configurations.
    pub fn oci(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Where loaders look without being told: Debian's folders, then those of others. In this order.
    fn library_folders(self) -> [String; 6] {
        let triplet = match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        };
        [
            format!("/lib/{triplet}"),
            format!("/usr/lib/{triplet}"),
            "/lib64".into(),
            "/usr/lib64".into(),
            "/lib".into(),
            "/usr/lib".into(),
        ]
    }
}

/// What the headers of an executable or a library say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// What it runs on.
    pub architecture: Architecture,
    /// The loader that the kernel starts for it; none, for a library or a static executable.
    interpreter: Option<String>,
    /// The libraries that it names itself.
    needed: Vec<String>,
    /// Whether it has a symbol table, which only debuggers read.
    pub has_symbols: bool,
}

impl Elf {
    /// Reads the headers of a 64-bit ELF file.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let header = FileHeader64::<Endianness>::parse(bytes)?;
        let endian = header.endian()?;
        let architecture = match header.e_machine(endian) {
            EM_X86_64 => Architecture::Amd64,
            EM_AARCH64 => Architecture::Arm64,
            other => {
                bail!("it is for machine {other} of the ELF specification: only x86_64 and aarch64 are known")
            }
        };
        let mut elf = Self { architecture, interpreter: None, needed: Vec::new(), has_symbols: false };
        for segment in header.program_headers(endian, bytes)? {
            if let Some(path) = segment.interpreter(endian, bytes)? {
                elf.interpreter = Some(text(path)?);
            }
        }
        let sections = header.sections(endian, bytes)?;
        for section in sections.iter() {
            elf.has_symbols |= section.sh_type(endian) == SHT_SYMTAB;
            let Some(table) = section.dynamic_table(endian, bytes, &sections)? else { continue };
            for entry in table.iter().filter(|entry| entry.tag == DT_NEEDED) {
                elf.needed.push(text(table.string(entry)?)?);
            }
        }
        Ok(elf)
    }
}

fn text(bytes: &[u8]) -> anyhow::Result<String> {
    Ok(std::str::from_utf8(bytes).context("a name in it is no text")?.to_owned())
}

/// The loader and all libraries that some programs of one architecture need, and what these need in turn: their
/// paths in an image, and the files on this machine.
///
/// A path is where the library was found, which is where the same loader looks for it, so there is no need of a
/// cache file as `ldconfig` writes it. Places that programs name themselves (`DT_RUNPATH`) are not looked at: ours
/// name none.
pub fn libraries(programs: &[&Elf]) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut loaders = BTreeSet::new();
    let mut wanted: Vec<(Architecture, String)> = Vec::new();
    for program in programs {
        if let Some(path) = &program.interpreter {
            loaders.extend(Path::new(path).file_name().and_then(|name| name.to_str()).map(str::to_owned));
            found.insert(path.clone(), PathBuf::from(path));
        }
        wanted.extend(program.needed.iter().map(|name| (program.architecture, name.clone())));
    }
    let mut seen = BTreeSet::new();
    while let Some((architecture, name)) = wanted.pop() {
        // The loader is loaded when it looks for libraries, and knows itself by this name.
        if loaders.contains(&name) || !seen.insert(name.clone()) {
            continue;
        }
        let (path, bytes, library) = find(architecture, &name)?;
        if name == "libc.so.6" {
            check_libc(&bytes).with_context(|| path.clone())?;
        }
        wanted.extend(library.needed.into_iter().map(|name| (architecture, name)));
        found.insert(path.clone(), path.into());
    }
    Ok(found)
}

fn find(architecture: Architecture, name: &str) -> anyhow::Result<(String, Vec<u8>, Elf)> {
    let folders = architecture.library_folders();
    folders
        .iter()
        .find_map(|folder| {
            let path = format!("{folder}/{name}");
            let bytes = std::fs::read(&path).ok()?;
            // The same name may be there for another architecture, as it is for a loader.
            let library = Elf::parse(&bytes).ok().filter(|library| library.architecture == architecture)?;
            Some((path, bytes, library))
        })
        .ok_or_else(|| {
            anyhow!("library {name} is in none of {}: install the package that has it", folders.join(", "))
        })
}

/// Until 2.34, glibc looked names up by libraries that no header names.
fn check_libc(bytes: &[u8]) -> anyhow::Result<()> {
    if bytes.windows(11).any(|window| window == b"GLIBC_2.34\0") {
        return Ok(());
    }
    bail!("glibc 2.34 or later is needed: before, it loaded more libraries to look up names")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Elf {
        Elf::parse(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn this_program_needs_its_loader_and_libc() {
        let elf = own();
        assert_eq!(elf.architecture.oci(), larder_oci::Platform::host().architecture());
        assert!(elf.has_symbols);
        let libraries = libraries(&[&elf]).unwrap();
        assert!(libraries.contains_key(elf.interpreter.as_ref().unwrap()), "{libraries:?}");
        assert!(libraries.keys().any(|path| path.ends_with("/libc.so.6")), "{libraries:?}");
        let names: BTreeSet<_> = libraries.values().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names.len(), libraries.len(), "each once: {libraries:?}");
        assert!(libraries.values().all(|path| path.is_file()));
    }

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let elf = Elf { needed: vec!["libno-such-thing.so.7".to_owned()], ..own() };
        let error = libraries(&[&elf]).unwrap_err().to_string();
        assert!(error.starts_with("library libno-such-thing.so.7 is in none of /lib/"), "{error}");
    }

    #[test]
    fn a_libc_that_loads_more_is_refused() {
        assert!(check_libc(b"..GLIBC_2.33\0GLIBC_2.4\0").is_err());
        check_libc(b"..GLIBC_2.33\0GLIBC_2.34\0GLIBC_2.36\0").unwrap();
    }

    #[test]
    fn what_is_no_elf_file_is_an_error() {
        Elf::parse(b"#!/bin/sh\n").unwrap_err();
        Elf::parse(b"").unwrap_err();
        let mut cut = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        cut.truncate(1000);
        Elf::parse(&cut).unwrap_err();
    }
}
