//! The process that compiles, as the one sees it that starts it: it gets one order, has as much time as that may
//! take, and answers into a file.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::de::DeserializeOwned;

use super::compiler::{Budget, CANNOT_WRITE, HEAD_BYTES_MAX, Order, read_head, write_message};
use super::{Fault, Refusal};

/// The child is the last to get a core, so that its time on the clock may be far longer than its CPU time.
const WALL_PER_CPU: u32 = 10;

/// A process that is started for one order.
pub(super) struct OneChild<'a> {
    pub(super) program: &'a Path,
    pub(super) budget: Budget,
    pub(super) folder: &'a Path,
}

impl OneChild<'_> {
    /// What it answers goes into a file without a name, and not into the memory of this process: there may be
    /// several answers at once, and code is large. `spent` becomes the CPU time that it took.
    pub(super) fn run<T: DeserializeOwned>(
        &self,
        order: &Order,
        bytes: &[u8],
        spent: &mut Duration,
    ) -> Result<(T, BufReader<File>), Refusal> {
        let OneChild { program, budget, folder } = *self;
        let ours = |err: &dyn std::fmt::Display| {
            let detail = format!("the compiler `{}` cannot be used: {err}", program.display());
            Refusal::new(Fault::Host(String::new()).code(), detail)
        };
        let answer = tempfile::tempfile_in(folder).map_err(|err| ours(&err))?;
        let stdout = answer.try_clone().map_err(|err| ours(&err))?;
        let mut child = Command::new(program)
            .arg("compile-plugin")
            // Nothing that this process was told, such as its key, is for that one.
            .env_clear()
            // In KiB. Otherwise the allocator reserves a GiB, and the limit of its address space is reached.
            .env("MIMALLOC_ARENA_RESERVE", "32768")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|err| ours(&err))?;
        let mut input = child.stdin.take().expect("it is piped");
        let id = Pid::from_child(&child);
        let child = Arc::new(Mutex::new(child));
        let seconds = budget.seconds.saturating_mul(order.forms());
        let watch = Watch::start(&child, Duration::from_secs(seconds.into()) * WALL_PER_CPU)
            .map_err(|err| ours(&err))?;
        // Whoever dies with half of it has its reasons, and the status tells them.
        let _ = write_message(&mut input, &(budget, order), bytes);
        drop(input);
        // The watch has to be able to end it until then, and its number is nobody else's before it is reaped.
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let _ = retry_on_intr(|| waitid(WaitId::Pid(id), ended));
        *spent = cpu_time(id);
        let status = lock(&child).wait().map_err(|err| ours(&err))?;
        if watch.ran_out() {
            return Err(order.limit("took too long"));
        }
        let size = answer.metadata().map_err(|err| ours(&err))?.len();
        if size > order.answer_bytes_max(budget) {
            return Err(order.limit(&order.too_large(budget)));
        }
        if status.code() == Some(CANNOT_WRITE) {
            return Err(ours(&"what it has made cannot be written"));
        }
        if !status.success() {
            return Err(match died(order, status, budget) {
                Some(why) => order.limit(&why),
                None => {
                    Refusal::new("cannot-compile", format!("the compiler gave up on it: {status}"))
                }
            });
        }
        let mut answer = BufReader::new(answer);
        answer.rewind().map_err(|err| ours(&err))?;
        let result = read_head::<Result<T, Refusal>>(&mut answer, HEAD_BYTES_MAX)
            .map_err(|err| ours(&err))?;
        Ok((result?, answer))
    }
}

/// The CPU time of a child that has ended and is still to be waited for; zero where the system does not say.
fn cpu_time(id: Pid) -> Duration {
    /// Behind the program's name, which may be anything and ends with the last `)`.
    const USER: usize = 11;
    const SYSTEM: usize = 12;
    /// On every Linux, in what it tells programs.
    const TICKS_PER_SECOND: u64 = 100;

    let path = format!("/proc/{}/stat", id.as_raw_nonzero());
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(USER) + ticks(SYSTEM)) * 1_000 / TICKS_PER_SECOND)
}

/// Which limit the way in which the child ended tells of.
fn died(order: &Order, status: ExitStatus, budget: Budget) -> Option<String> {
    const SIGABRT: i32 = 6;
    const SIGSEGV: i32 = 11;
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    const SIGXFSZ: i32 = 25;
    let Budget { seconds, memory_bytes, .. } = budget;
    match status.signal()? {
        SIGXCPU | SIGKILL => Some(format!("takes more than {seconds} s of CPU time")),
        SIGXFSZ => Some(order.too_large(budget)),
        SIGABRT | SIGSEGV => {
            Some(format!("takes more than {memory_bytes} bytes of memory, or too deep a stack"))
        }
        _ => None,
    }
}

/// Ends a child that takes too long.
struct Watch {
    done: Option<mpsc::Sender<()>>,
    thread: thread::JoinHandle<bool>,
}

impl Watch {
    fn start(child: &Arc<Mutex<Child>>, patience: Duration) -> io::Result<Watch> {
        let (done, wait) = mpsc::channel();
        let child = Arc::clone(child);
        let thread = thread::Builder::new().name("compile-watch".to_owned()).spawn(move || {
            let late = wait.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                // It may have ended by itself just now.
                let _ = lock(&child).kill();
            }
            late
        })?;
        Ok(Watch { done: Some(done), thread })
    }

    /// Ends the watch.
    fn ran_out(mut self) -> bool {
        self.done.take();
        self.thread.join().unwrap_or(true)
    }
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}
