//! Runs plugins. The only room that knows wasmtime.
//!
//! `compiler` has compiled code made of an upload, by a `process` of its own, in which the `child` works: there,
//! `check` makes sure that it is a plugin, `compile` compiles and tries it, and `image` keeps what it is once it is
//! configured. `workshop` has all of that done, in its `lane`, and nothing else compiles; `hours` counts for whom;
//! `cache` keeps compiled code on disk, and `runtime` what is loaded of it. `engine` says how instances are kept;
//! `loaded` is a plugin that can be run, `run` one run of it, whose time the `stopwatch` counts; `configured` knows
//! which images are worth having; `pipeline` is all the steps of a subscription, one after the other, and `carry`
//! what comes of a verdict; `manifest` checks what a plugin says of itself.

mod bindings;
mod cache;
mod carry;
#[cfg(feature = "compiler")]
mod check;
#[cfg(feature = "compiler")]
mod child;
#[cfg(feature = "compiler")]
mod compile;
mod compiler;
mod configured;
mod engine;
mod hours;
#[cfg(feature = "compiler")]
mod image;
mod imports;
mod lane;
mod loaded;
mod manifest;
mod pipeline;
mod process;
mod run;
mod runtime;
mod standard;
mod stopwatch;
mod workshop;

use std::time::Duration;

use hookyard_nouns::digest::Digest;
use hookyard_nouns::plugin::{Manifest, World};
use serde::{Deserialize, Serialize};

#[cfg(feature = "compiler")]
pub use child::serve_one;
pub use compiler::{Budget, Compiler};
pub use configured::Slow;
pub use engine::{Limits, Purpose};
pub use pipeline::{Addressee, Outcome, Ran, StepRun, time_us};
pub use runtime::{CodeBytes, Runtime};
pub use standard::STANDARD_PLUGINS;
pub use workshop::{Equipment, Files, Making, Workshop};

/// Why a file is not a plugin. `code` is stable; the text says what to do about it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    pub code: String,
    pub detail: String,
}

impl Refusal {
    pub fn new(code: &str, detail: impl Into<String>) -> Refusal {
        Refusal { code: code.to_owned(), detail: detail.into() }
    }

    /// Whether the router is to blame and not the file.
    pub fn is_ours(&self) -> bool {
        is_ours(&self.code)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal::new(fault.code(), fault.to_string())
    }
}

const NOT_RUN: &str = "plugin-not-run";
const NOT_READY: &str = "plugin-not-ready";

/// Whether a code says that the router is to blame: then nothing is lost by it, only late.
pub fn is_ours(code: &str) -> bool {
    code == NOT_RUN || code == NOT_READY
}

/// Why a run has no verdict. Each kind has a code that people search by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the plugin trapped: {0}")]
    Trap(String),
    #[error("the plugin used up its {budget_ms} ms of CPU time")]
    Time { budget_ms: u128 },
    /// Before the plugin was called with the event.
    #[error(
        "making the plugin's instance and configuring it used up the {budget_ms} ms of CPU time that \
         a run has, and {why}"
    )]
    Start { budget_ms: u128, why: String },
    #[error("the plugin wanted more than {bytes_max} bytes of memory")]
    Memory { bytes_max: usize },
    #[error("the plugin answered more than {bytes_max} bytes")]
    Output { bytes_max: usize },
    #[error(
        "the plugin had more than {} bytes of data searched or edited",
        imports::SEARCHED_BYTES_MAX
    )]
    Search,
    #[error("the plugin's verdict cannot be carried out: {0}")]
    Verdict(String),
    #[error("the plugin refuses its configuration: {0}")]
    Configuration(String),
    /// Not at run time, but when a plugin is loaded.
    #[error("the plugin does not fit: {0}")]
    Unfit(String),
    /// Not the plugin's fault.
    #[error("the plugin could not be run: {0}")]
    Host(String),
    /// Nor is this. It can be run as soon as that has ended.
    #[error("the plugin's code is being made")]
    NotReady(Making),
}

impl Fault {
    pub fn code(&self) -> &'static str {
        match self {
            Fault::Trap(_) => "plugin-trap",
            Fault::Time { .. } | Fault::Start { .. } => "plugin-timeout",
            Fault::Memory { .. } => "plugin-out-of-memory",
            Fault::Output { .. } => "plugin-output-too-large",
            Fault::Search => "plugin-search-too-large",
            Fault::Verdict(_) => "plugin-bad-verdict",
            Fault::Configuration(_) => "plugin-bad-configuration",
            Fault::Unfit(_) => "plugin-unfit",
            Fault::Host(_) => NOT_RUN,
            Fault::NotReady(_) => NOT_READY,
        }
    }

    /// Whether the router is to blame and not the plugin: then it is run again.
    pub fn is_ours(&self) -> bool {
        matches!(self, Fault::Host(_) | Fault::NotReady(_))
    }
}

/// What an accepted upload is.
#[derive(Debug)]
pub struct Uploaded {
    pub digest: Digest,
    pub world: World,
    pub manifest: Manifest,
    /// The interfaces that it asks the router for.
    pub imports: Vec<String>,
    pub compile_time: Duration,
    /// The median of a fresh instance that is asked nothing.
    pub empty_run_time: Duration,
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, mpsc};

    use bytes::Bytes;
    use hookyard_nouns::event::Tenant;
    use hookyard_nouns::rendering::Step;

    use super::*;
    use crate::fair::Owner;

    /// The most that the code of plugins and of images may be together.
    const KEPT: CodeBytes = CodeBytes { plugins_max: 96 << 20, images_max: 64 << 20 };

    const PATIENCE: Duration = Duration::from_secs(60);

    pub(super) fn limits() -> Limits {
        Limits {
            filter_ms: 5,
            transform_ms: 20,
            configure_ms: 250,
            memory_bytes_max: 32 << 20,
            output_bytes_max: 1 << 20,
            runs_max: 4,
        }
    }

    fn open(folder: &Path, key: [u8; 32], file: Option<Bytes>) -> Arc<Workshop> {
        let it = Equipment {
            compiler: Compiler::Here,
            limits: limits(),
            forms: vec![Purpose::Serve, Purpose::Measure],
            folder: folder.to_owned(),
            key,
            files: Box::new(move |digest| Ok(file.clone().filter(|it| Digest::of(it) == digest))),
            hour_max: Duration::from_mins(10),
        };
        Workshop::open(it).unwrap()
    }

    pub(super) fn runtime(folder: &Path) -> Arc<Runtime> {
        Runtime::new(&open(folder, [7; 32], None), Purpose::Serve, KEPT).unwrap()
    }

    fn tenant() -> Owner {
        Some(Tenant::new("t").unwrap())
    }

    fn standard(name: &str) -> &'static [u8] {
        STANDARD_PLUGINS.iter().find(|(it, _)| *it == name).unwrap().1
    }

    /// The code of both forms in a cache.
    fn compiled(folder: &Path) -> Vec<PathBuf> {
        let files = |folder: &Path| {
            let files = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
            files.filter(|it| it.extension().is_some_and(|it| it == "compiled")).collect::<Vec<_>>()
        };
        [files(folder), files(&folder.join("measured"))].concat()
    }

    /// A step that accepts everything, of a plugin that is uploaded.
    fn uploaded(runtime: &Runtime) -> Step {
        let plugin = runtime.upload(&None, standard("filter"), true).unwrap().digest;
        Step::new(plugin, r#"{"when": {"at": "/a", "exists": true}}"#)
    }

    /// What a step is told that is tried until its code is there.
    fn tried(runtime: &Runtime, step: &Step) -> Result<Option<Slow>, Fault> {
        loop {
            match runtime.try_configuration(step, &tenant()) {
                Err(not_ready @ Fault::NotReady(_)) => await_end(not_ready),
                told => return told,
            }
        }
    }

    /// Ends when what a fault says is not ready has been made or loaded.
    pub(super) fn await_end(fault: Fault) {
        let Fault::NotReady(making) = fault else { panic!("{fault}") };
        let asleep = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let ended = async { tokio::time::timeout(PATIENCE, making.ended()).await };
        asleep.block_on(ended).expect("it is never made");
    }

    /// All compilers have something to do until this is dropped.
    pub(super) fn hold_compilers(runtime: &Runtime) -> [mpsc::Sender<()>; 2] {
        let owners = [None, tenant()];
        owners.map(|owner| {
            let (end, ended) = mpsc::channel::<()>();
            let lane = &runtime.workshop.lane;
            lane.submit(&owner, lane::Rank::Needed, 0, move || _ = ended.recv()).unwrap();
            end
        })
    }

    #[test]
    fn both_forms_of_code_are_made_at_upload() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = runtime(folder.path());
        let step = uploaded(&runtime);
        assert_eq!(compiled(folder.path()).len(), 2);
        let measuring = Runtime::new(&runtime.workshop, Purpose::Measure, KEPT).unwrap();
        assert!(measuring.plugin(step.plugin, &tenant(), &mut runtime::Here::new()).is_ok());
    }

    #[test]
    fn code_that_was_changed_or_is_missing_is_made_anew_and_not_where_it_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let step = uploaded(&runtime(folder.path()));
        let files = compiled(folder.path());
        let whole = std::fs::read(&files[0]).unwrap();
        for change in [Some(0), Some(whole.len() / 2), None] {
            std::fs::remove_file(&files[0]).unwrap();
            if let Some(at) = change {
                let mut changed = whole.clone();
                changed[at] ^= 1;
                std::fs::write(&files[0], changed).unwrap();
            }
            let runtime = runtime(folder.path());
            let told = runtime.try_configuration(&step, &tenant());
            assert!(matches!(told, Err(Fault::NotReady(_))), "{told:?}");
            assert_eq!(tried(&runtime, &step), Ok(None));
            assert!(runtime.workshop.cache(Purpose::Serve).load(step.plugin).is_some());
        }
    }

    #[test]
    fn code_on_disk_waits_for_no_compiler() {
        let folder = tempfile::tempdir().unwrap();
        let step = uploaded(&runtime(folder.path()));
        let runtime = runtime(folder.path());
        let held = hold_compilers(&runtime);
        // As at the start, and as for a tenant's plugin that is large.
        for owner in [None, tenant()] {
            await_end(runtime.order_loading(step.plugin, &owner));
            assert!(runtime.is_loaded(step.plugin));
        }
        assert_eq!(tried(&runtime, &step), Ok(None));
        drop(held);
    }

    #[test]
    fn a_plugin_that_cannot_be_compiled_any_more_says_so_and_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        for (file, why) in
            [(Some(Bytes::from_static(b"\0asm")), "WebAssembly"), (None, "not in the store")]
        {
            let plugin = Digest::of(b"\0asm");
            let workshop = open(folder.path(), [7; 32], file);
            let runtime = Runtime::new(&workshop, Purpose::Serve, KEPT).unwrap();
            let told = tried(&runtime, &Step::new(plugin, "{}"));
            assert!(matches!(&told, Err(Fault::Unfit(it)) if it.contains(why)), "{told:?}");
        }
    }

    #[test]
    fn a_folder_is_cleared_of_nothing_but_old_code() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("notes.txt");
        let old = folder.path().join("0123.0000000000000000.compiled");
        std::fs::write(&kept, "mine").unwrap();
        std::fs::write(&old, "old").unwrap();
        runtime(folder.path());
        assert!(kept.exists() && !old.exists());
    }
}
