//! Compiled plugins on disk. Loading one is running it, so only what this server wrote is loaded: a
//! file carries a tag that needs the server's key, and it is checked on the very bytes that are used.

use std::fs;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use hookyard_nouns::digest::Digest;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compiler::{About, HEAD_BYTES_MAX, read_head, write_message};
use crate::descriptors;
use crate::fair::{self, Owner};

/// A file is a tag, the mark of whose it is, and a message with the code.
const TAG_BYTES: usize = 32;
const MARK_BYTES: usize = 8;
/// How large the files may be together.
const FOLDER_BYTES_MAX: usize = 2 << 30;
/// How the files end; before that stands who has compiled them, and how they are written.
const COMPILED: &str = ".compiled";
const MADE_BY: &str = concat!(".wasmtime-", env!("HOOKYARD_WASMTIME"), ".2.compiled");
/// Others can write to the folder: the group, or everybody.
const OTHERS_WRITE: u32 = 0o022;

pub(super) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
}

/// What was read of a file whose tag is right.
pub(super) struct Cached {
    pub(super) about: About,
    /// Compiled code, or the text of a script.
    pub(super) code: Bytes,
}

impl Cached {
    pub(super) fn component(&self, engine: &Engine) -> wasmtime::Result<Component> {
        #[expect(unsafe_code, reason = "the tag proves that this server compiled these bytes")]
        let component = unsafe { Component::deserialize(engine, &self.code) };
        component
    }
}

impl Cache {
    /// Opens a folder, which is made for nobody but us where there is none, and forgets what another engine
    /// has compiled.
    pub(super) fn open(folder: &Path, key: [u8; 32]) -> io::Result<Cache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        if fs::metadata(folder)?.permissions().mode() & OTHERS_WRITE != 0 {
            // Its mode is its maker's. What others put there is not loaded, but they can take code away.
            let folder = folder.display();
            tracing::warn!(%folder, "others can write to the folder of compiled plugins");
        }
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.to_string_lossy();
            // The folder may be one that others put something in as well.
            if name.ends_with(COMPILED) && !name.ends_with(MADE_BY) {
                remove(&path)?;
            }
        }
        Ok(Cache { folder: folder.to_owned(), key })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How large the file of a name is; none where there is none.
    pub(super) fn size(&self, name: Digest) -> Option<u64> {
        fs::metadata(self.path(name)).ok().map(|it| it.len())
    }

    /// What is kept for a name; none where it has to be made.
    pub(super) fn load(&self, name: Digest) -> Option<Cached> {
        match self.read(name) {
            Ok(cached) => Some(cached),
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) if descriptors::are_short(&err) => {
                tracing::warn!(%name, %err, "a compiled plugin cannot be read now");
                None
            }
            Err(err) => {
                self.give_up(name, &err.to_string());
                None
            }
        }
    }

    fn read(&self, name: Digest) -> io::Result<Cached> {
        let mut opened = fs::File::open(self.path(name))?;
        let mut file = Vec::new();
        opened.read_to_end(&mut file)?;
        let wrong = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let (tag, content) = file.split_at_checked(TAG_BYTES).ok_or(wrong("it is cut off"))?;
        if self.mac(name).chain_update(content).verify_slice(tag).is_err() {
            return Err(wrong("another server has written it, or it has been changed since"));
        }
        // What is needed stays longest. A file that is too old goes a little sooner, and is made again.
        let _ = rustix::fs::futimens(&opened, &NOW);
        let mut rest = content.get(MARK_BYTES..).ok_or(wrong("it is cut off"))?;
        let about = read_head(&mut rest, HEAD_BYTES_MAX)?;
        let start = file.len() - rest.len();
        Ok(Cached { about, code: Bytes::from(file).slice(start..) })
    }

    /// Removes a file that cannot be loaded, so that whoever needs it next has it made anew.
    pub(super) fn give_up(&self, name: Digest, why: &str) {
        tracing::warn!(%name, why, "a compiled plugin cannot be loaded; it is compiled anew");
        if let Err(err) = remove(&self.path(name)) {
            tracing::warn!(%name, %err, "a compiled plugin that cannot be loaded cannot be removed");
        }
    }

    /// Keeps code of so many bytes under a name, in the place of what is old where there is no room. A crash
    /// leaves either the whole file or none.
    pub(super) fn store(
        &self,
        name: Digest,
        owner: &Owner,
        about: &About,
        code: &mut impl Read,
        length: u64,
    ) -> io::Result<()> {
        let path = self.path(name);
        let unfinished = path.with_extension(format!("{:016x}{MADE_BY}", rand::random::<u64>()));
        let file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&unfinished)?;
        self.write(file, name, owner, about, &mut code.take(length))
            .and_then(|()| fs::rename(&unfinished, &path))
            .inspect_err(|_| _ = fs::remove_file(&unfinished))?;
        // What was stored is there, however large the folder is.
        if let Err(err) = self.make_room(FOLDER_BYTES_MAX) {
            tracing::warn!(%err, "the folder of compiled plugins grows: what is old cannot be removed");
        }
        Ok(())
    }

    fn write(
        &self,
        mut file: fs::File,
        name: Digest,
        owner: &Owner,
        about: &About,
        code: &mut impl Read,
    ) -> io::Result<()> {
        // The tag is of what comes behind it.
        file.write_all(&[0; TAG_BYTES])?;
        let mut tagged = BufWriter::new(Tagging { file: &mut file, mac: self.mac(name) });
        tagged.write_all(&mark(owner))?;
        write_message(&mut tagged, about, &[])?;
        io::copy(code, &mut tagged)?;
        let tag = tagged.into_inner().map_err(io::IntoInnerError::into_error)?.mac.finalize();
        file.rewind()?;
        file.write_all(&tag.into_bytes())
    }

    /// The owner with the most bytes loses what it has not used for longest.
    fn make_room(&self, bytes_max: usize) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another process may remove or rename something in the meantime.
            if entry.file_name().to_string_lossy().ends_with(MADE_BY)
                && let Ok(about) = entry.metadata()
            {
                let bytes = usize::try_from(about.len()).unwrap_or(usize::MAX);
                files.push((about.modified()?, bytes, entry.path()));
            }
        }
        if files.iter().map(|(_, bytes, _)| bytes).sum::<usize>() <= bytes_max {
            return Ok(());
        }
        files.sort_unstable();
        let mut kept = fair::Cache::<PathBuf, (), [u8; MARK_BYTES]>::new(bytes_max);
        for (_, bytes, path) in files {
            let owner = mark_of(&path).unwrap_or_default();
            for (path, ()) in kept.put(&owner, path, bytes, ()) {
                // What is needed again is compiled again.
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn path(&self, name: Digest) -> PathBuf {
        self.folder.join(format!("{}{MADE_BY}", &name.to_string()[7..]))
    }

    fn mac(&self, name: Digest) -> Hmac<Sha256> {
        let mut mac = Hmac::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(&name.0);
        mac.update(MADE_BY.as_bytes());
        mac
    }
}

/// Another process may be at the same folder, and faster.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

const NOW: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
};

/// Tells owners apart, without their names.
fn mark(owner: &Owner) -> [u8; MARK_BYTES] {
    let owner = owner.as_ref().map_or("", |it| it.as_str());
    let mut mark = [0; MARK_BYTES];
    mark.copy_from_slice(&Digest::of(owner.as_bytes()).0[..MARK_BYTES]);
    mark
}

fn mark_of(path: &Path) -> io::Result<[u8; MARK_BYTES]> {
    let mut start = [0; TAG_BYTES + MARK_BYTES];
    fs::File::open(path)?.read_exact(&mut start)?;
    let mut mark = [0; MARK_BYTES];
    mark.copy_from_slice(&start[TAG_BYTES..]);
    Ok(mark)
}

/// Writes to a file, and counts all of it into a tag.
struct Tagging<'a> {
    file: &'a mut fs::File,
    mac: Hmac<Sha256>,
}

impl Write for Tagging<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.mac.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use hookyard_nouns::event::Tenant;
    use hookyard_nouns::plugin::{Manifest, World};

    use super::*;

    fn about() -> About {
        About {
            world: World::Filter,
            manifest: Manifest::default(),
            imports: Vec::new(),
            compile_time: Duration::ZERO,
            empty_run_time: Duration::ZERO,
            is_script: true,
        }
    }

    fn store(cache: &Cache, owner: &str, name: Digest, bytes: usize) {
        let owner = Some(Tenant::new(owner).unwrap());
        let code = vec![7; bytes];
        cache.store(name, &owner, &about(), &mut &code[..], bytes as u64).unwrap();
    }

    fn name(number: u8) -> Digest {
        Digest::of(&[number])
    }

    #[test]
    fn what_was_stored_is_loaded_and_nothing_that_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), [1; 32]).unwrap();
        store(&cache, "a", name(1), 10_000);
        assert_eq!(cache.load(name(1)).unwrap().code, vec![7; 10_000]);
        assert!(cache.load(name(2)).is_none());
        let whole = fs::read(cache.path(name(1))).unwrap();
        let is_loaded = |cache: &Cache, name: Digest, content: &[u8]| {
            let _ = fs::remove_file(cache.path(name));
            fs::write(cache.path(name), content).unwrap();
            let is_loaded = cache.load(name).is_some();
            assert_eq!(cache.size(name).is_some(), is_loaded, "what is not loaded is made anew");
            is_loaded
        };
        assert!(!is_loaded(&cache, name(2), &whole), "it was stored under another name");
        let other = Cache::open(folder.path(), [2; 32]).unwrap();
        assert!(!is_loaded(&other, name(1), &whole), "another server has stored it");
        for at in [0, TAG_BYTES, TAG_BYTES + MARK_BYTES + 2, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(!is_loaded(&cache, name(1), &changed), "byte {at}");
            assert!(!is_loaded(&cache, name(1), &whole[..at]), "the first {at} bytes");
        }
        assert!(is_loaded(&cache, name(1), &whole));
    }

    #[test]
    fn a_folder_that_is_there_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o755, 0o750, 0o777] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            Cache::open(folder.path(), [1; 32]).unwrap();
            assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, mode);
        }
        let new = folder.path().join("new");
        Cache::open(&new, [1; 32]).unwrap();
        assert_eq!(fs::metadata(new).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn whoever_fills_the_folder_loses_its_own_files() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), [1; 32]).unwrap();
        store(&cache, "a", name(0), 10_000);
        for number in 1..9 {
            store(&cache, "b", name(number), 10_000);
        }
        // What was made first is the oldest, but for what was needed since.
        let hour = Duration::from_hours(1);
        for number in 0..9 {
            let file = fs::File::open(cache.path(name(number))).unwrap();
            let old = SystemTime::UNIX_EPOCH + hour * u32::from(number);
            file.set_modified(old).unwrap();
        }
        cache.load(name(1)).unwrap();
        cache.make_room(55_000).unwrap();
        let kept: Vec<_> = (0..9).filter(|it| cache.size(name(*it)).is_some()).collect();
        assert_eq!(kept, [0, 1, 6, 7, 8]);
    }
}
