//! Compiled plugins on disk. Loading one is running it, so only what this server wrote is loaded: a
//! file carries a tag that needs the server's key, and it is checked on the very bytes that are used.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::plugin::Digest;

const TAG_BYTES: usize = 32;
/// How the files end.
const COMPILED: &str = ".compiled";

pub(super) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
    /// Which wasmtime with which settings made the code.
    made_by: String,
}

impl Cache {
    /// Opens a folder, which is ours alone, and forgets what another engine has compiled.
    pub(super) fn open(folder: &Path, key: [u8; 32], engine: &Engine) -> io::Result<Cache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let mut hasher = Sha(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let made_by = Digest(hasher.0.finalize().into()).to_string()[7..23].to_owned();
        let cache = Cache { folder: folder.to_owned(), key, made_by };
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.to_string_lossy();
            // The folder may be one that others put something in as well.
            if name.ends_with(COMPILED) && !name.ends_with(&cache.suffix()) {
                fs::remove_file(&path)?;
            }
        }
        Ok(cache)
    }

    /// The compiled form of a plugin; none where it has to be compiled.
    pub(super) fn load(&self, engine: &Engine, digest: Digest) -> Option<Component> {
        let file = fs::read(self.path(digest)).ok()?;
        let (tag, code) = file.split_at_checked(TAG_BYTES)?;
        if self.mac(digest, code).verify_slice(tag).is_err() {
            tracing::warn!(%digest, "a compiled plugin was not written by this server; compiling anew");
            return None;
        }
        #[expect(unsafe_code, reason = "the tag proves that this server compiled these bytes")]
        let component = unsafe { Component::deserialize(engine, code) };
        component
            .inspect_err(|err| tracing::warn!(%digest, %err, "a compiled plugin cannot be loaded"))
            .ok()
    }

    /// Keeps compiled code. A crash leaves either the whole file or none.
    pub(super) fn store(&self, digest: Digest, code: &[u8]) -> io::Result<()> {
        let path = self.path(digest);
        let unfinished =
            path.with_extension(format!("{:016x}{}", rand::random::<u64>(), self.suffix()));
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&unfinished)?;
        let tag = self.mac(digest, code).finalize().into_bytes();
        file.write_all(&tag)
            .and_then(|()| file.write_all(code))
            .and_then(|()| fs::rename(&unfinished, &path))
            .inspect_err(|_| _ = fs::remove_file(&unfinished))
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{}{}", &digest.to_string()[7..], self.suffix()))
    }

    fn suffix(&self) -> String {
        format!(".{}{COMPILED}", self.made_by)
    }

    fn mac(&self, digest: Digest, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(&digest.0);
        mac.update(self.made_by.as_bytes());
        mac.update(code);
        mac
    }
}

/// Collects what `Hash` writes, for a hash that is the same in every process.
struct Sha(Sha256);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("only the whole digest is read")
    }
}
