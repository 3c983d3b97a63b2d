//! Compiled plugins on disk. Loading one is running it, so only what this server wrote is loaded: a
//! file carries a tag that needs the server's key, and it is checked on the very bytes that are used.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compiler::{About, Compiled, read_message, write_message};
use crate::plugin::Digest;

const TAG_BYTES: usize = 32;
/// How large the files may be together.
const FOLDER_BYTES_MAX: u64 = 2 << 30;
/// How the files end; before that stands who has compiled them.
const COMPILED: &str = ".compiled";
const MADE_BY: &str = concat!(".wasmtime-", env!("HOOKYARD_WASMTIME"), ".compiled");

pub(super) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
}

impl Cache {
    /// Opens a folder, which is ours alone, and forgets what another engine has compiled.
    pub(super) fn open(folder: &Path, key: [u8; 32]) -> io::Result<Cache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.to_string_lossy();
            // The folder may be one that others put something in as well.
            if name.ends_with(COMPILED) && !name.ends_with(MADE_BY) {
                match fs::remove_file(&path) {
                    // Another process may clear the same folder.
                    Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                    _ => {}
                }
            }
        }
        Ok(Cache { folder: folder.to_owned(), key })
    }

    /// The compiled form of a plugin; none where it has to be compiled.
    pub(super) fn load(&self, engine: &Engine, name: Digest) -> Option<(Component, About)> {
        let file = fs::read(self.path(name)).ok()?;
        let (tag, content) = file.split_at_checked(TAG_BYTES)?;
        if self.mac(name, content).verify_slice(tag).is_err() {
            tracing::warn!(%name, "a compiled plugin was not written by this server; compiling anew");
            return None;
        }
        let (about, code) = read_message(content).ok()?;
        #[expect(unsafe_code, reason = "the tag proves that this server compiled these bytes")]
        let component = unsafe { Component::deserialize(engine, code) };
        component
            .inspect_err(|err| tracing::warn!(%name, %err, "a compiled plugin cannot be loaded"))
            .ok()
            .map(|it| (it, about))
    }

    /// Keeps compiled code, in the place of the oldest where there is no room. A crash leaves either the
    /// whole file or none.
    pub(super) fn store(&self, name: Digest, compiled: &Compiled) -> io::Result<()> {
        let path = self.path(name);
        let unfinished = path.with_extension(format!("{:016x}{MADE_BY}", rand::random::<u64>()));
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&unfinished)?;
        let mut content = Vec::with_capacity(compiled.code.len() + 4_096);
        write_message(&mut content, &compiled.about, &compiled.code)?;
        let tag = self.mac(name, &content).finalize().into_bytes();
        file.write_all(&tag)
            .and_then(|()| file.write_all(&content))
            .and_then(|()| fs::rename(&unfinished, &path))
            .inspect_err(|_| _ = fs::remove_file(&unfinished))?;
        self.make_room()
    }

    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(MADE_BY) {
                let about = entry.metadata()?;
                let made = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((made, about.len(), entry.path()));
            }
        }
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        files.sort_unstable();
        for (_, size, path) in files {
            if bytes <= FOLDER_BYTES_MAX {
                break;
            }
            // What is needed again is compiled again.
            fs::remove_file(path)?;
            bytes -= size;
        }
        Ok(())
    }

    fn path(&self, name: Digest) -> PathBuf {
        self.folder.join(format!("{}{MADE_BY}", &name.to_string()[7..]))
    }

    fn mac(&self, name: Digest, content: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(&name.0);
        mac.update(MADE_BY.as_bytes());
        mac.update(content);
        mac
    }
}
