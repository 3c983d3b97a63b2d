//! The compiler, in a process of its own: this program again, by its hidden command `compile-plugin`,
//! with limits on its time and memory. What a hostile file does to it, it does to nobody else.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hookyard_nouns::event::Violation;
use hookyard_nouns::plugin::{Manifest, World};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Refusal;
use super::engine::{Limits, Purpose};
use super::process::OneChild;

/// The most that it says beside code: what is known of the file, or what is wrong with a configuration.
pub(super) const HEAD_BYTES_MAX: u64 = 8 << 20;
/// CPU time for the check of a configuration, and for an image, in seconds.
const CHECK_SECONDS: u32 = 2;
const IMAGE_SECONDS: u32 = 20;
/// How large an image may be.
const IMAGE_BYTES_MAX: u64 = 16 << 20;
/// How the child ends that cannot write its answer.
pub(super) const CANNOT_WRITE: i32 = 74;
/// What compiling one file may use.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Budget {
    /// CPU time, in seconds, for each form of the code.
    pub seconds: u32,
    pub memory_bytes: u64,
    /// How large each form of the code may be.
    pub code_bytes: u64,
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
pub(super) enum Order {
    /// To compile the file.
    Compile(Job),
    /// To check the configuration by a schema.
    Check { schema: Value },
}

/// What is to be compiled, beside the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// For what engines there is to be code.
    pub(super) forms: Vec<Purpose>,
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
    /// What is kept for it is the text of a script, and no code.
    pub(super) is_script: bool,
}

/// What has come out of a file, as the process that compiles has it.
#[cfg(feature = "compiler")]
pub(super) struct Compiled {
    pub(super) about: About,
    /// The code in the forms that were asked for.
    pub(super) codes: Vec<Vec<u8>>,
}

/// The same as this process has it: the code stays on disk.
pub(super) struct Made {
    pub(super) about: About,
    /// How long each form of the code is, in the order in which they were asked for.
    pub(super) lengths: Vec<u64>,
    /// What follows is the code.
    pub(super) code: BufReader<File>,
}

impl Compiler {
    /// Takes a moment, and a core. `folder` is for the code until somebody takes it. `spent` becomes the CPU time
    /// that it took, whatever comes of it.
    pub(super) fn compile(
        &self,
        folder: &Path,
        job: Job,
        file: &[u8],
        spent: &mut Duration,
    ) -> Result<Made, Refusal> {
        match self {
            Compiler::Child(program, budget) => {
                let mut budget = *budget;
                if job.config.is_some() {
                    budget.seconds = budget.seconds.min(IMAGE_SECONDS);
                    budget.code_bytes = budget.code_bytes.min(IMAGE_BYTES_MAX);
                }
                let child = OneChild { program, budget, folder };
                let ((about, lengths), code) = child.run(&Order::Compile(job), file, spent)?;
                Ok(Made { about, lengths, code })
            }
            #[cfg(test)]
            Compiler::Here => {
                let stages = super::compile::Stages { form: &|| (), trial: &|| () };
                let start = std::time::Instant::now();
                let it = super::compile::compile(&job, file, &stages)?;
                *spent = start.elapsed();
                let lengths = it.codes.iter().map(|it| it.len() as u64).collect();
                let mut code = tempfile::tempfile().expect("there is room for it");
                code.write_all(&it.codes.concat()).expect("there is room for it");
                io::Seek::rewind(&mut code).expect("a file has a beginning");
                Ok(Made { about: it.about, lengths, code: BufReader::new(code) })
            }
        }
    }

    /// What a schema, which a stranger wrote, says against a configuration.
    ///
    /// # Errors
    ///
    /// It is not a schema, or it takes too long to say.
    pub(super) fn check(
        &self,
        folder: &Path,
        schema: Value,
        config: &str,
    ) -> Result<Vec<Violation>, Refusal> {
        match self {
            Compiler::Child(program, budget) => {
                let budget = Budget { seconds: CHECK_SECONDS, code_bytes: 0, ..*budget };
                let child = OneChild { program, budget, folder };
                let order = Order::Check { schema };
                let mut spent = Duration::ZERO;
                child.run(&order, config.as_bytes(), &mut spent).map(|(violations, _)| violations)
            }
            #[cfg(test)]
            Compiler::Here => super::child::check(&schema, config.as_bytes()),
        }
    }
}

impl Order {
    /// How many forms of code it asks for: each has its time and its size.
    pub(super) fn forms(&self) -> u32 {
        match self {
            Order::Compile(job) => u32::try_from(job.forms.len()).unwrap_or(u32::MAX),
            Order::Check { .. } => 1,
        }
    }

    pub(super) fn answer_bytes_max(&self, budget: Budget) -> u64 {
        HEAD_BYTES_MAX + u64::from(self.forms()) * budget.code_bytes
    }

    pub(super) fn limit(&self, why: &str) -> Refusal {
        let (what, by) = match self {
            Order::Compile(Job { config: None, .. }) => {
                ("compiling it", " (`plugin-compile-seconds`, `plugin-compile-bytes-max`)")
            }
            Order::Compile(_) => ("making its image", ""),
            Order::Check { .. } => ("checking a configuration by the plugin's schema", ""),
        };
        Refusal::new("compile-limit", format!("{what} {why}{by}; make it smaller or simpler"))
    }

    pub(super) fn too_large(&self, budget: Budget) -> String {
        match self {
            Order::Compile(_) => format!("makes more than {} bytes of code", budget.code_bytes),
            Order::Check { .. } => "finds more wrong than can be told".to_owned(),
        }
    }
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

/// The head of a message; then come its bytes.
pub(super) fn read_head<T: DeserializeOwned>(
    from: &mut impl Read,
    bytes_max: u64,
) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u64::from(u32::from_le_bytes(length));
    if length > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the head is too large"));
    }
    let mut head = Vec::new();
    from.take(length).read_to_end(&mut head)?;
    Ok(serde_json::from_slice(&head)?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;
    use crate::wasm::tests::limits;

    /// What is told of a program that does this in the place of compiling.
    fn told(script: &str, seconds: u32) -> (Refusal, Duration) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("compiler");
        // A child writes it: a process that another test forks meanwhile would still have it open for writing,
        // and the system would not run it.
        let text = folder.path().join("text");
        std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        let written = Command::new("install").arg("-m700").arg(text).arg(&program).status();
        assert!(written.unwrap().success());
        let budget = Budget { seconds, memory_bytes: 1 << 30, code_bytes: 1_000 };
        let compiler = Compiler::Child(program, budget);
        let job = Job { forms: vec![Purpose::Serve], limits: limits(), config: None };
        // More than fits into a pipe.
        let mut spent = Duration::ZERO;
        match compiler.compile(folder.path(), job, &[0; 1 << 20], &mut spent) {
            Ok(_) => panic!("`{script}` compiles"),
            Err(refusal) => (refusal, spent),
        }
    }

    fn check(script: &str, seconds: u32, code: &str, words: &str) {
        let (refusal, _) = told(script, seconds);
        assert_eq!(refusal.code, code, "{script}: {refusal}");
        assert!(refusal.detail.contains(words), "{script}: {refusal}");
    }

    #[test]
    fn a_compiler_that_does_not_end_is_ended() {
        let start = Instant::now();
        check("exec sleep 60", 0, "compile-limit", "took too long");
        check("cat > /dev/null; exec sleep 60", 0, "compile-limit", "took too long");
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn how_a_compiler_ends_says_what_was_wrong() {
        check("exit 3", 9, "cannot-compile", "gave up");
        check("kill -XCPU $$", 9, "compile-limit", "more than 9 s of CPU time");
        check("kill -XFSZ $$", 9, "compile-limit", "more than 1000 bytes of code");
        check("exit 74", 9, "plugin-not-run", "cannot be written");
        check("cat > /dev/null", 9, "plugin-not-run", "");
        check("head -c 9000000 /dev/zero", 9, "compile-limit", "more than 1000 bytes of code");
    }

    #[test]
    fn the_cpu_time_of_a_compiler_is_known_and_not_how_long_it_waits() {
        let (_, slept) = told("sleep 0.3; exit 3", 9);
        assert!(slept < Duration::from_millis(200), "{slept:?}");
        let (_, worked) = told("i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done; exit 3", 9);
        assert!(worked > slept + Duration::from_millis(20), "{worked:?} and {slept:?}");
    }
}
