//! Which event each worker works on, in a file that outlives the process. An event that ends the process would do
//! so again at each start, since it is taken up first; by its mark the next process knows it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hookyard_nouns::delivery::Reason;
use hookyard_nouns::digest::Digest;
use rustix::fs::OFlags;
use uuid::Uuid;

const MARK_BYTES: usize = 16 + 32;
/// How many marks are read: of more workers than any machine has.
const MARKS_MAX: usize = 4_096;

/// What is made of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Work {
    pub event: Uuid,
    /// By which rendering bodies are made; none while it is not known yet who wants the event.
    pub rendering: Option<Digest>,
}

/// The file, and what the last process left in it.
#[derive(Debug)]
pub struct Marks {
    file: Arc<File>,
    left: Vec<Work>,
}

/// The place of one worker.
#[derive(Debug)]
pub struct Slot {
    file: Arc<File>,
    at: u64,
    marked: bool,
}

/// What is not worked on any more.
#[derive(Debug, Default)]
pub struct SetAside {
    works: RwLock<HashSet<Work>>,
    /// How much there is: nearly always nothing, which costs no lock to know.
    count: AtomicUsize,
}

impl SetAside {
    /// Whether no bodies are made of an event by a rendering.
    pub fn has(&self, event: Uuid, rendering: Digest) -> bool {
        self.contains(Work { event, rendering: Some(rendering) })
    }

    /// Whether it is not even looked at who wants an event.
    pub fn has_event(&self, event: Uuid) -> bool {
        self.contains(Work { event, rendering: None })
    }

    fn contains(&self, work: Work) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.works.read().unwrap_or_else(PoisonError::into_inner).contains(&work)
    }

    /// From now on it is not worked on.
    pub fn add(&self, work: Work) {
        let mut works = self.works.write().unwrap_or_else(PoisonError::into_inner);
        works.insert(work);
        self.count.store(works.len(), Ordering::Release);
    }
}

impl Marks {
    /// Opens or makes the file, and reads the marks of the last process.
    ///
    /// # Errors
    ///
    /// The file cannot be made or read, or it is a link.
    pub fn open(path: &Path) -> io::Result<Marks> {
        // A link is not to decide which file we write to.
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(flags).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut left = Vec::new();
        let mut mark = [0; MARK_BYTES];
        for number in 0..MARKS_MAX {
            match file.read_exact_at(&mut mark, offset(number)) {
                Err(err) if err.kind() == ErrorKind::UnexpectedEof => break,
                read => read?,
            }
            left.extend(Work::read(mark));
        }
        left.sort_unstable();
        left.dedup();
        Ok(Marks { file: Arc::new(file), left })
    }

    /// What was being worked on when the last process ended without being stopped.
    pub fn left(&self) -> &[Work] {
        &self.left
    }

    /// Forgets what the last process left, and gives each of so many workers its place.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn slots(self, count: usize) -> io::Result<Vec<Slot>> {
        self.file.set_len(0)?;
        let slot =
            |number| Slot { file: Arc::clone(&self.file), at: offset(number), marked: false };
        Ok((0..count).map(slot).collect())
    }
}

impl Slot {
    /// This worker works on that from now on. One system call: the page is in memory, and stays there when the
    /// process dies.
    pub fn mark(&mut self, work: Work) {
        self.marked = true;
        self.write(&work.bytes());
    }

    /// It has got through it.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.marked) {
            self.write(&[0; MARK_BYTES]);
        }
    }

    /// Without a mark nothing is lost but the knowledge of what ended the process.
    fn write(&self, mark: &[u8; MARK_BYTES]) {
        if let Err(err) = self.file.write_all_at(mark, self.at) {
            tracing::debug!(%err, "cannot mark what is being worked on");
        }
    }
}

/// Why a delivery is not made that was set aside.
pub fn set_aside_reason() -> Reason {
    let detail = "the router's process ended twice while this delivery was being made, so it is not made \
                  again by this version";
    Reason::new("internal", detail)
}

impl Work {
    fn bytes(self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[..16].copy_from_slice(self.event.as_bytes());
        if let Some(rendering) = self.rendering {
            bytes[16..].copy_from_slice(&rendering.0);
        }
        bytes
    }

    /// None where nothing was worked on.
    fn read(mark: [u8; MARK_BYTES]) -> Option<Work> {
        let (event, rendering) = mark.split_at(16);
        let event = Uuid::from_slice(event).ok().filter(|id| !id.is_nil())?;
        let rendering = rendering.try_into().ok().filter(|it| *it != [0; 32]).map(Digest);
        Some(Work { event, rendering })
    }
}

fn offset(number: usize) -> u64 {
    (number * MARK_BYTES) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(event: u128, rendering: u8) -> Work {
        let rendering = (rendering > 0).then_some(Digest([rendering; 32]));
        Work { event: Uuid::from_u128(event), rendering }
    }

    #[test]
    fn the_next_process_knows_what_was_being_worked_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marks");
        let marks = Marks::open(&path).unwrap();
        assert_eq!(marks.left(), []);
        let mut slots = marks.slots(3).unwrap();
        slots[0].mark(work(1, 1));
        slots[0].mark(work(2, 7));
        slots[1].mark(work(3, 3));
        slots[1].clear();
        slots[2].mark(work(4, 0));
        let next = Marks::open(&path).unwrap();
        assert_eq!(next.left(), [work(2, 7), work(4, 0)]);
        drop(next.slots(1).unwrap());
        assert_eq!(Marks::open(&path).unwrap().left(), []);
    }

    #[test]
    fn a_link_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("marks"), folder.path().join("other"));
        std::fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        Marks::open(&path).unwrap_err();
    }
}
