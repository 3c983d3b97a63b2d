//! The store's file: locked for one router, and watched, since what is committed into a file that has been
//! deleted or replaced is gone with the process.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::wal;
use crate::secret::open_to_others;

/// The database's file, from its opening to its end.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    wal: PathBuf,
    /// Holds the lock, and is the file that SQLite has opened by the same path.
    file: File,
    file_id: Id,
    wal_id: Option<Id>,
    is_locked: bool,
}

/// Which file it is, whatever its name: two names may be one file, and a name may come to be another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id {
    device: u64,
    inode: u64,
}

impl Id {
    fn of(about: &Metadata) -> Id {
        Id { device: about.dev(), inode: about.ino() }
    }

    fn at(path: &Path) -> io::Result<Id> {
        std::fs::metadata(path).map(|it| Id::of(&it))
    }
}

impl StoreFile {
    /// Opens the database's file; makes an empty one, for us alone, where there is none.
    ///
    /// # Errors
    ///
    /// It cannot be opened or made, or it is no file.
    pub(super) fn open(path: &Path) -> anyhow::Result<StoreFile> {
        if !path.exists() {
            // `create_new` follows no link: a link to nowhere is not to decide where the store is.
            let made = File::options().write(true).create_new(true).mode(0o600).open(path);
            made.map_err(|err| anyhow::anyhow!("cannot make `{}`: {err}", path.display()))?;
        }
        let file = File::options().read(true).write(true).open(path)?;
        let about = file.metadata()?;
        anyhow::ensure!(about.is_file(), "`{}` is not a file", path.display());
        // SQLite resolves links before it names the files beside it.
        let path = path.canonicalize()?;
        let wal = beside(&path, "-wal");
        let file_id = Id::of(&about);
        Ok(StoreFile { wal, path, file, file_id, wal_id: None, is_locked: false })
    }

    /// Makes sure that there is no other router on the file. The lock is one of the file itself, whatever
    /// name it was opened by: a second name or a link leads to the same lock, and there is no lock file that
    /// somebody could delete.
    ///
    /// # Errors
    ///
    /// There is another router.
    pub(super) fn lock(&mut self) -> anyhow::Result<()> {
        self.file.try_lock().map_err(|_| {
            let path = self.path.display();
            anyhow::anyhow!("another router uses `{path}`; one file is for one process")
        })?;
        self.is_locked = true;
        Ok(())
    }

    /// Makes sure that the write-ahead log is as it was written.
    ///
    /// # Errors
    ///
    /// It is damaged; the text says what can be done.
    pub(super) fn check_log(&self) -> anyhow::Result<()> {
        wal::check(&self.wal)
    }

    /// Whether there are other names for the same file. By another name SQLite would keep another
    /// write-ahead log, and the two would destroy each other's work.
    pub(super) fn has_other_names(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() > 1)
    }

    /// What others may do with the store, as a sentence that warns of it; none where they may do nothing.
    pub(super) fn open_to_others(&self) -> Option<String> {
        [&self.path, &self.wal].into_iter().find_map(|path| open_to_others(path))
    }

    /// From now on it is known which write-ahead log belongs to the store. To be called once SQLite has it open.
    pub(super) fn take_note_of_log(&mut self) {
        self.wal_id = Id::at(&self.wal).ok();
    }

    /// Whether the files at our paths are still the ones that are open.
    ///
    /// # Errors
    ///
    /// What has become of them, and what to do about it.
    pub(super) fn check(&self) -> Result<(), Moved> {
        if Id::at(&self.path).ok() != Some(self.file_id) {
            return Err(Moved { path: self.path.clone(), is_log: false });
        }
        match self.wal_id {
            Some(id) if Id::at(&self.wal).ok() != Some(id) => {
                Err(Moved { path: self.wal.clone(), is_log: true })
            }
            _ => Ok(()),
        }
    }
}

impl Drop for StoreFile {
    fn drop(&mut self) {
        if self.is_locked {
            // To close the file would not do where a child process is just being made: until it runs its
            // own program it has the file as well. What fails here ends with the process.
            let _ = self.file.unlock();
        }
    }
}

/// A file of the store is not at its path any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` was deleted, moved or replaced while the router runs: nothing is taken any more, since it would be \
     lost; put the file back or restore a backup, and start the router again",
    .path.display()
)]
pub(super) struct Moved {
    path: PathBuf,
    /// It is the write-ahead log: what was in it can still be written into the database.
    pub(super) is_log: bool,
}

pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
