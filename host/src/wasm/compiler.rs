//! The compiler, in a process of its own: this program again, by its hidden command `compile-plugin`,
//! with limits on its time and memory. What a hostile file does to it, it does to nobody else.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
#[cfg(feature = "compiler")]
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::engine::{Limits, Purpose};
use super::{Fault, Refusal};
use crate::event::Violation;
use crate::plugin::{Manifest, World};

/// The most bytes that the two processes tell each other: compiled code, most of it.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// CPU time for the check of a configuration, and for an image, in seconds.
const CHECK_SECONDS: u32 = 2;
const IMAGE_SECONDS: u32 = 20;
/// The child is the last to get a core, so that its time on the clock may be far longer than its CPU time.
const WALL_PER_CPU: u32 = 10;

/// What compiling one file may use.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Budget {
    /// CPU time, in seconds.
    pub seconds: u32,
    pub memory_bytes: u64,
}

/// Who compiles.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// A program, in a process of its own.
    Child(PathBuf, Budget),
    /// This process, in tests of this room.
    #[cfg(test)]
    Here,
}

/// What is asked of the process, beside the bytes that it is about.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// To compile the file.
    Compile(Job),
    /// To check the configuration by a schema.
    Check { schema: Value },
}

/// What is to be compiled, beside the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) purpose: Purpose,
    pub(super) limits: Limits,
    /// Make an image of the plugin after it has taken this configuration.
    pub(super) config: Option<String>,
}

/// What is known of a file once it is compiled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) world: World,
    pub(super) manifest: Manifest,
    pub(super) imports: Vec<String>,
    pub(super) compile_time: Duration,
    /// The median of a fresh instance that is asked nothing.
    pub(super) empty_run_time: Duration,
}

pub(super) struct Compiled {
    pub(super) about: About,
    pub(super) code: Bytes,
}

impl Compiler {
    /// Takes a moment, and a core.
    pub(super) fn compile(&self, job: Job, file: &[u8]) -> Result<Compiled, Refusal> {
        match self {
            Compiler::Child(program, budget) => {
                let mut budget = *budget;
                if job.config.is_some() {
                    budget.seconds = budget.seconds.min(IMAGE_SECONDS);
                }
                let (about, code) = in_child(program, budget, &Order::Compile(job), file)?;
                Ok(Compiled { about, code })
            }
            #[cfg(test)]
            Compiler::Here => super::compile::compile(&job, file, &|| ()),
        }
    }

    /// What a schema, which a stranger wrote, says against a configuration.
    ///
    /// # Errors
    ///
    /// It is not a schema, or it takes too long to say.
    pub(super) fn check(&self, schema: Value, config: &str) -> Result<Vec<Violation>, Refusal> {
        match self {
            Compiler::Child(program, budget) => {
                let budget = Budget { seconds: CHECK_SECONDS, ..*budget };
                let order = Order::Check { schema };
                in_child(program, budget, &order, config.as_bytes())
                    .map(|(violations, _)| violations)
            }
            #[cfg(test)]
            Compiler::Here => check(&schema, config.as_bytes()),
        }
    }
}

fn in_child<T: DeserializeOwned>(
    program: &Path,
    budget: Budget,
    order: &Order,
    bytes: &[u8],
) -> Result<(T, Bytes), Refusal> {
    let ours = |err: &dyn std::fmt::Display| {
        let detail = format!("the compiler `{}` cannot be used: {err}", program.display());
        Refusal::new(Fault::Host(String::new()).code(), detail)
    };
    let mut child = Command::new(program)
        .arg("compile-plugin")
        // Nothing that this process was told, such as its key, is for that one.
        .env_clear()
        // In KiB. Otherwise the allocator reserves a GiB, and the limit of its address space is reached.
        .env("MIMALLOC_ARENA_RESERVE", "32768")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|err| ours(&err))?;
    let (mut input, output) = (child.stdin.take(), child.stdout.take());
    let child = Arc::new(Mutex::new(child));
    let watch = Watch::start(&child, Duration::from_secs(budget.seconds.into()) * WALL_PER_CPU)
        .map_err(|err| ours(&err))?;
    let mut answer = Vec::new();
    let read = thread::scope(|scope| {
        scope.spawn(|| {
            let mut input = input.take().expect("it is piped");
            // Whoever dies with half of it has its reasons, and the status tells them.
            let _ = write_message(&mut input, &(budget, order), bytes);
        });
        let output = output.expect("it is piped");
        output.take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut answer)
    });
    let status = lock(&child).wait().map_err(|err| ours(&err))?;
    let limit = |why: String| {
        let (what, by) = match order {
            Order::Compile(_) => {
                ("compiling it", " (`plugin-compile-seconds`, `plugin-compile-bytes-max`)")
            }
            Order::Check { .. } => ("checking a configuration by the plugin's schema", ""),
        };
        Refusal::new("compile-limit", format!("{what} {why}{by}; make it smaller or simpler"))
    };
    if watch.ran_out() {
        return Err(limit("took too long".to_owned()));
    }
    read.map_err(|err| ours(&err))?;
    if answer.len() as u64 > MESSAGE_BYTES_MAX {
        return Err(limit(format!("makes more than {MESSAGE_BYTES_MAX} bytes of code")));
    }
    if !status.success() {
        return Err(match died(status, budget) {
            Some(why) => limit(why),
            None => Refusal::new("cannot-compile", format!("the compiler gave up on it: {status}")),
        });
    }
    let answer = Bytes::from(answer);
    let (result, code) = read_message::<Result<T, Refusal>>(&answer).map_err(|err| ours(&err))?;
    Ok((result?, answer.slice_ref(code)))
}

/// Which limit the way in which the child ended tells of.
fn died(status: ExitStatus, budget: Budget) -> Option<String> {
    const SIGABRT: i32 = 6;
    const SIGSEGV: i32 = 11;
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    let Budget { seconds, memory_bytes } = budget;
    match status.signal()? {
        SIGXCPU | SIGKILL => Some(format!("takes more than {seconds} s of CPU time")),
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

/// A message is the length of its head, the head as JSON, and bytes up to the end.
pub(super) fn write_message(
    to: &mut impl Write,
    head: &impl Serialize,
    bytes: &[u8],
) -> io::Result<()> {
    let head = serde_json::to_vec(head)?;
    let length = u32::try_from(head.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&head)?;
    to.write_all(bytes)?;
    to.flush()
}

pub(super) fn read_message<T: for<'a> Deserialize<'a>>(message: &[u8]) -> io::Result<(T, &[u8])> {
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the message is cut off");
    let (length, rest) = message.split_first_chunk().ok_or_else(cut)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(io::Error::other)?;
    let (head, bytes) = rest.split_at_checked(length).ok_or_else(cut)?;
    Ok((serde_json::from_slice(head)?, bytes))
}

/// What the child does: the whole of the command `compile-plugin`.
///
/// # Errors
///
/// It is not what the router starts, or there is a bug; what is wrong with the file is an answer.
#[cfg(feature = "compiler")]
pub fn serve_one() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    /// How much of the address space instances of the trial may reserve, which takes no memory.
    const RESERVED_BYTES_MAX: u64 = 128 << 30;

    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    rustix::process::nice(19)?;
    let mut message = Vec::new();
    io::stdin().take(MESSAGE_BYTES_MAX).read_to_end(&mut message)?;
    let ((budget, order), bytes): ((Budget, Order), _) = read_message(&message)?;
    let limit = |resource, soft: u64, hard: u64| {
        setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })
    };
    let seconds = u64::from(budget.seconds);
    limit(Resource::Cpu, seconds, seconds + 1)?;
    limit(Resource::Data, budget.memory_bytes, budget.memory_bytes)?;
    limit(Resource::Core, 0, 0)?;
    // The engine that the trial runs on reserves what the compiler has no need for.
    limit(Resource::As, budget.memory_bytes.saturating_mul(2), RESERVED_BYTES_MAX)?;
    let trial_begins = || {
        let all = Rlimit { current: Some(RESERVED_BYTES_MAX), maximum: Some(RESERVED_BYTES_MAX) };
        setrlimit(Resource::As, all).expect("a limit may be raised up to its maximum");
    };
    let work = || match order {
        Order::Compile(job) => super::compile::compile(&job, bytes, &trial_begins)
            .map(|it| (serde_json::json!(it.about), it.code)),
        Order::Check { schema } => {
            check(&schema, bytes).map(|it| (serde_json::json!(it), Bytes::new()))
        }
    };
    let done = catch_unwind(AssertUnwindSafe(work));
    let gave_up = match &done {
        Ok(Ok(_)) => false,
        Ok(Err(refusal)) => refusal.code == "cannot-compile" || refusal.is_ours(),
        Err(_) => true,
    };
    if gave_up && memory_ran_out(budget) {
        // Not everything that is refused memory says so; this end does.
        std::process::abort();
    }
    let (result, code) = match done {
        Ok(Ok((it, code))) => (Ok(it), code),
        Ok(Err(refusal)) => (Err(refusal), Bytes::new()),
        Err(panic) => resume_unwind(panic),
    };
    write_message(&mut io::stdout().lock(), &result, &code)?;
    Ok(())
}

/// Whether the process has come near its limit.
#[cfg(feature = "compiler")]
fn memory_ran_out(budget: Budget) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap_or_default();
    let most_kib: u64 = most.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    most_kib << 10 > budget.memory_bytes / 2
}

#[cfg(feature = "compiler")]
fn check(schema: &Value, config: &[u8]) -> Result<Vec<Violation>, Refusal> {
    let config: Value = serde_json::from_slice(config)
        .map_err(|err| Refusal::new("not-json", format!("the configuration is not JSON: {err}")))?;
    Ok(super::manifest::schema(schema)?.violations(&config))
}
