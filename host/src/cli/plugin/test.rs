//! `hookyard plugin test`

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::ensure;
use hookyard_nouns::rendering::Step;

use super::Here;
use super::build::{self, is_script};
use super::cases::{self, Case};
use super::local::Local;
use super::project::Project;
use crate::cli::print::{Unread, say};
use crate::printable::Printable;
use crate::trial;

/// How often a watched folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Folders that builds write to.
const NOT_WATCHED: [&str; 6] = ["target", "node_modules", "dist", "build", "bindings", "cases"];

#[derive(Debug, clap::Args)]
pub(super) struct Test {
    #[command(flatten)]
    here: Here,
    /// Write what the plugin really answers into the cases
    #[arg(long)]
    update: bool,
    /// Build and test again whenever a file changes, until interrupted
    #[arg(long)]
    watch: bool,
}

impl Test {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let project = self.here.project()?;
        if !self.watch {
            let failed = run_cases(&project, self.update)?;
            ensure!(failed == 0, "{failed} failed");
            return Ok(());
        }
        loop {
            let changed = last_change(&project.folder);
            let tested = build::run(&project).and_then(|()| run_cases(&project, self.update));
            match tested {
                Err(err) if err.is::<Unread>() => return Err(err),
                Err(err) => eprintln!("hookyard: {}", Printable(format_args!("{err:#}"))),
                Ok(_) => {}
            }
            say!("waiting for a change")?;
            while last_change(&project.folder) == changed {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}

/// Answers how many cases failed.
fn run_cases(project: &Project, update: bool) -> anyhow::Result<usize> {
    let file = project.read_file()?;
    let local = Local::new(Vec::new())?;
    let plugin = local.upload(&file, is_script(project))?.digest;
    let mut failed = 0;
    for case in cases::read_all(&project.folder.join("cases"))? {
        let step = Step::new(plugin, case.config.to_string());
        let trial = trial::try_step(&local.runtime, &case.event()?, &step)?;
        let cost = trial.run.as_ref().map_or_else(String::new, |run| {
            let (fuel, memory) = (run.fuel.unwrap_or(0), run.memory_bytes >> 10);
            format!("{fuel} fuel, {} µs, {memory} KiB", run.time.as_micros())
        });
        if case.is_met(&trial.verdict) {
            say!("ok     {}: {cost}", case.name())?;
        } else if update {
            case.update(&trial.verdict)?;
            say!("wrote  {}: {cost}", case.name())?;
        } else {
            failed += 1;
            say!("FAILED {}: {cost}", case.name())?;
            explain(&case, &trial)?;
        }
    }
    Ok(failed)
}

fn explain(case: &Case, trial: &trial::Trial) -> anyhow::Result<()> {
    let real = serde_json::to_string(&trial.verdict)?;
    say!("  expected  {}", case.expect)?;
    say!("  answered  {real}")?;
    let diff = trial::difference(case.expect.to_string().as_bytes(), real.as_bytes());
    say!("  to go from the one to the other: {diff}")?;
    for line in trial.run.iter().flat_map(|run| &run.log) {
        say!("  log {}: {}", line.level.as_str(), line.message)?;
    }
    Ok(())
}

/// When something in the folder was changed that is not made by the build or the test.
fn last_change(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let changes = entries.filter_map(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') || NOT_WATCHED.contains(&&*name) || name.ends_with(".wasm") {
            return None;
        }
        let path = entry.path();
        if path.is_dir() { last_change(&path) } else { entry.metadata().ok()?.modified().ok() }
    });
    changes.max()
}
