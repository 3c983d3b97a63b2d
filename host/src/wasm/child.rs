//! What the process does that compiles: it is told one order, with limits on its time and memory, and answers.

use std::io::{self, BufWriter, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use hookyard_nouns::event::Violation;
use serde_json::Value;

use super::compile::{Stages, compile};
use super::compiler::{Budget, CANNOT_WRITE, Order, read_head, write_message};
use super::{Refusal, manifest};

/// The most bytes that it is told: a file, most of it.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// What the child does: the whole of the command `compile-plugin`.
///
/// # Errors
///
/// It is not what the router starts, or there is a bug; what is wrong with the file is an answer.
pub fn serve_one() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    /// How much of the address space instances of the trial may reserve, which takes no memory.
    const RESERVED_BYTES_MAX: u64 = 128 << 30;

    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    rustix::process::nice(19)?;
    let mut message = Vec::new();
    io::stdin().take(MESSAGE_BYTES_MAX).read_to_end(&mut message)?;
    let mut bytes = &message[..];
    let (budget, order): (Budget, Order) = read_head(&mut bytes, MESSAGE_BYTES_MAX)?;
    let limit = |resource, soft: u64, hard: u64| {
        setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })
    };
    let (seconds, forms) = (u64::from(budget.seconds), u64::from(order.forms()));
    let seconds_max = seconds * forms + 1;
    limit(Resource::Cpu, seconds, seconds_max)?;
    limit(Resource::Data, budget.memory_bytes, budget.memory_bytes)?;
    limit(Resource::Core, 0, 0)?;
    let answer_bytes = order.answer_bytes_max(budget);
    limit(Resource::Fsize, answer_bytes, answer_bytes)?;
    // The engine that the trial runs on reserves what the compiler has no need for.
    limit(Resource::As, budget.memory_bytes.saturating_mul(2), RESERVED_BYTES_MAX)?;
    let may_be_raised = "a limit may be raised up to its maximum";
    let trial = || {
        limit(Resource::As, RESERVED_BYTES_MAX, RESERVED_BYTES_MAX).expect(may_be_raised);
    };
    let form = || {
        // Each has as much time as if it were the only one.
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_sec;
        let until = (spent.unsigned_abs() + seconds).min(seconds_max - 1);
        limit(Resource::Cpu, until, seconds_max).expect(may_be_raised);
    };
    let stages = Stages { form: &form, trial: &trial };
    let work = || match order {
        Order::Compile(job) => {
            let it = compile(&job, bytes, &stages)?;
            let is_too_large = |code: &Vec<u8>| code.len() as u64 > budget.code_bytes;
            if it.codes.iter().any(is_too_large) {
                let order = Order::Compile(job);
                return Err(order.limit(&order.too_large(budget)));
            }
            let lengths: Vec<usize> = it.codes.iter().map(Vec::len).collect();
            Ok((serde_json::json!((it.about, lengths)), it.codes))
        }
        Order::Check { schema } => {
            check(&schema, bytes).map(|it| (serde_json::json!(it), Vec::new()))
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
    let (result, codes) = match done {
        Ok(Ok((it, codes))) => (Ok(it), codes),
        Ok(Err(refusal)) => (Err(refusal), Vec::new()),
        Err(panic) => resume_unwind(panic),
    };
    let mut answer = BufWriter::new(io::stdout().lock());
    let written = write_message(&mut answer, &result, &[])
        .and_then(|()| codes.iter().try_for_each(|code| answer.write_all(code)))
        .and_then(|()| answer.flush());
    if written.is_err() {
        // The file is not to blame when the disk is full.
        std::process::exit(CANNOT_WRITE);
    }
    Ok(())
}

/// Whether the process has come near its limit.
fn memory_ran_out(budget: Budget) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap_or_default();
    let most_kib: u64 = most.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    most_kib << 10 > budget.memory_bytes / 2
}

pub(super) fn check(schema: &Value, config: &[u8]) -> Result<Vec<Violation>, Refusal> {
    let config: Value = serde_json::from_slice(config)
        .map_err(|err| Refusal::new("not-json", format!("the configuration is not JSON: {err}")))?;
    Ok(manifest::schema(schema)?.violations(&config))
}
