//! Whether the write-ahead log is whole. SQLite takes a frame that has lost a bit for the end of the log, and what
//! was committed after it is gone without a word; here that is found, and nothing is opened until a person has
//! decided.
//!
//! The format is that of the section "The Write-Ahead Log" of SQLite's "Database File Format".

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The last bit says whether the words that are summed have the most significant byte first.
const MAGIC: u32 = 0x377f_0682;
const PAGE_BYTES_MAX: u32 = 65_536;

/// What identifies the frames of one log: when it begins anew, it has others.
type Salts = [u8; 8];

/// The sum over everything from the beginning of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    big_endian: bool,
    words: [u32; 2],
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let (pairs, _) = bytes.as_chunks::<8>();
        for pair in pairs {
            let [one, two] = [0, 4].map(|at| {
                let word = pair[at..at + 4].try_into().expect("half of eight bytes are four");
                if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
            });
            self.words[0] = self.words[0].wrapping_add(one).wrapping_add(self.words[1]);
            self.words[1] = self.words[1].wrapping_add(two).wrapping_add(self.words[0]);
        }
    }

    fn is(self, written: &[u8]) -> bool {
        self.words[0].to_be_bytes() == written[..4] && self.words[1].to_be_bytes() == written[4..8]
    }
}

/// How far a log is as it was written.
#[derive(Debug, Default)]
struct Scan {
    /// How many frames are whole, from the beginning.
    whole: u64,
    /// The first one after them that ends a transaction.
    commit: bool,
    /// One that was written after that: then the transaction with the broken frame was on disk before.
    later: bool,
}

/// Makes sure that no transaction is lost by a damaged log. To be called while nobody has the store open.
///
/// # Errors
///
/// The log is damaged before its end, or cannot be read.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    let file = match File::open(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let scan = scan(BufReader::with_capacity(1 << 20, file))?;
    anyhow::ensure!(
        !scan.later,
        "the write-ahead log `{}` is damaged: after {} frames that are whole there is one that is not, and \
         transactions after it that were on disk; restore the log, or the store from a backup; to go on \
         without these transactions, move the log away",
        path.display(),
        scan.whole
    );
    Ok(())
}

fn scan(mut log: impl Read) -> io::Result<Scan> {
    let mut header = [0; HEADER_BYTES];
    if !fill(&mut log, &mut header)? {
        return Ok(Scan::default());
    }
    let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|it| header[at + it]));
    let mut sum = Sum { big_endian: word(0) & 1 == 1, words: [0; 2] };
    sum.add(&header[..24]);
    let is_size = |it: u32| it.is_power_of_two() && (512..=PAGE_BYTES_MAX).contains(&it);
    let mut whole = word(0) & !1 == MAGIC && is_size(word(8)) && sum.is(&header[24..]);
    // Without a header the usual size of a page is as good as any.
    let page_bytes = if is_size(word(8)) { word(8) } else { 4_096 };
    let mut salts: Option<Salts> =
        whole.then(|| [0, 1, 2, 3, 4, 5, 6, 7].map(|at| header[16 + at]));

    let mut scan = Scan::default();
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
    while fill(&mut log, &mut frame)? {
        let own: Salts = [0, 1, 2, 3, 4, 5, 6, 7].map(|at| frame[8 + at]);
        let is_commit = frame[4..8] != [0; 4];
        sum.add(&frame[..8]);
        sum.add(&frame[FRAME_HEADER_BYTES..]);
        whole &= salts == Some(own) && sum.is(&frame[16..24]);
        if whole {
            scan.whole += 1;
        } else if *salts.get_or_insert(own) == own {
            // Each transaction is on disk before the next one is begun, but not the last one as a whole: that
            // may be torn by a loss of power, and was not confirmed to anybody.
            scan.later |= scan.commit;
            scan.commit |= is_commit;
        }
    }
    Ok(scan)
}

/// Whether there was as much left as a buffer takes.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Err(err) if err.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// The log of five transactions, of which the last has several frames.
    fn log() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sqlite");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "wal").unwrap();
        connection.execute_batch("create table t (x blob) strict").unwrap();
        for _ in 0..3 {
            connection.execute("insert into t values (zeroblob(10))", ()).unwrap();
        }
        connection.execute("insert into t values (randomblob(20000))", ()).unwrap();
        std::fs::read(folder.path().join("x.sqlite-wal")).unwrap()
    }

    fn frame(number: usize) -> usize {
        HEADER_BYTES + number * (FRAME_HEADER_BYTES + 4_096)
    }

    #[test]
    fn a_log_that_is_whole_or_ends_early_is_fine() {
        let log = log();
        let frames = (log.len() - HEADER_BYTES) / (FRAME_HEADER_BYTES + 4_096);
        let found = scan(log.as_slice()).unwrap();
        assert_eq!((found.whole, found.later), (frames as u64, false));
        for end in [0, 10, HEADER_BYTES, frame(1), frame(2) + 100, log.len() - 1] {
            assert!(!scan(&log[..end]).unwrap().later, "it ends at {end}");
        }
    }

    #[test]
    fn a_torn_last_transaction_is_no_damage() {
        let log = log();
        for number in 5..(log.len() - HEADER_BYTES) / (FRAME_HEADER_BYTES + 4_096) {
            let mut torn = log.clone();
            torn[frame(number) + 600..frame(number) + 1_112].fill(0);
            assert!(!scan(torn.as_slice()).unwrap().later, "frame {number} is torn");
        }
    }

    #[test]
    fn a_bit_that_has_turned_before_the_last_transaction_is_found() {
        let log = log();
        for at in (0..HEADER_BYTES).chain(frame(0)..frame(0) + 24).chain([frame(1) + 100, frame(3)])
        {
            let mut turned = log.clone();
            turned[at] ^= 1;
            // The number of the checkpoint and the version are summed as well.
            assert!(scan(turned.as_slice()).unwrap().later, "byte {at}");
        }
    }

    #[test]
    fn what_an_older_log_has_left_is_not_looked_at() {
        let mut log = log();
        // All frames but the first two are of a log before.
        for number in 2..(log.len() - HEADER_BYTES) / (FRAME_HEADER_BYTES + 4_096) {
            log[frame(number) + 8] ^= 0x55;
        }
        assert!(!scan(log.as_slice()).unwrap().later);
    }
}
