//! What runs of plugins cost, beside the same work in native code.
//!
//! A run is all of `Runtime::run` for one step: a fresh instance, the plugin, and what its verdict makes of
//! the event.

mod held; // instances at the same time
mod native; // the same work without WebAssembly
mod work; // the plugins, their configurations, and events

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hookyard::wasm::{
    Addressee, Budget, CodeBytes, Compiler, Equipment, Limits, Outcome, Purpose, Runtime, Workshop,
};
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::Event;
use hookyard_nouns::rendering::Step;

use super::Bench;
use super::report::{Report, Rounds, Row};
use work::Work;

/// Each time is the median of so many batches, and is shown with the fastest and the slowest of them.
const BATCHES: usize = 15;
/// The runs of a batch: fewer than those with which a configuration is worth an image.
const BATCH: u32 = 150;
/// Enough runs for an image to be made.
const RUNS_FOR_IMAGE: usize = 200;
const IMAGE_PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn measure(bench: &mut Bench) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = open(folder.path(), 4, 5);
    let plugins = work::plugins();
    let mut digests = Vec::new();
    for plugin in &plugins {
        let mut making = Making::default();
        // What a runtime knows it does not compile again.
        for _ in 1..bench.rounds {
            let folder = tempfile::tempdir().unwrap();
            making.round(&open(folder.path(), 4, 5), folder.path(), plugin);
        }
        let digest = making.round(&runtime, folder.path(), plugin);
        add_loading(&mut bench.report, folder.path(), plugin, digest, making);
        digests.push(digest);
    }
    for (plugin, digest) in plugins.iter().zip(digests) {
        for size in &plugin.sizes {
            add_runs(&mut bench.report, &runtime, plugin, digest, *size);
        }
    }
    held::measure(&mut bench.report, bench.rounds);
}

/// What it takes until a plugin runs as fast as it can, in milliseconds.
#[derive(Default)]
struct Making {
    upload: Rounds,
    compiling: Rounds,
    image: Rounds,
}

impl Making {
    /// On a runtime that does not know the plugin.
    fn round(&mut self, runtime: &Runtime, folder: &Path, plugin: &Work) -> Digest {
        let (uploaded, upload) = clocked(|| runtime.upload(&None, &plugin.file, false).unwrap());
        let step = Step::new(uploaded.digest, plugin.config.clone());
        let image = make_image(runtime, folder, &step, &work::event(1));
        self.upload.0.push(millis(upload));
        self.compiling.0.push(millis(uploaded.compile_time));
        self.image.0.push(millis(image));
        uploaded.digest
    }
}

/// What the plugin `minimize` takes for 1 KiB, of what native code takes.
pub(crate) fn minimize_of_native() -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let runtime = open(folder.path(), 4, 5);
    let plugin = work::plugins().into_iter().find(|it| it.name == "minimize").unwrap();
    let digest = runtime.upload(&None, &plugin.file, false).unwrap().digest;
    let step = Step::new(digest, plugin.config.clone());
    let event = work::event(1);
    make_image(&runtime, folder.path(), &step, &event);
    let (mut image, mut native) = (Rounds::default(), Rounds::default());
    let data = event.content.data.as_ref().unwrap().bytes();
    let work = plugin.native.unwrap();
    for _ in 0..BATCHES {
        image.0.push(each(|| _ = black_box(run(&runtime, &event, &step))));
        native.0.push(each(|| _ = black_box(work(black_box(data)))));
    }
    image.median() / native.median()
}

/// `runs_max` instances at most, and `filter_ms` of CPU time for a filter.
fn open(folder: &Path, runs_max: u32, filter_ms: u64) -> Arc<Runtime> {
    try_open(folder, runs_max, filter_ms).unwrap()
}

fn try_open(folder: &Path, runs_max: u32, filter_ms: u64) -> anyhow::Result<Arc<Runtime>> {
    let limits = Limits {
        filter_ms,
        transform_ms: 20,
        configure_ms: 250,
        memory_bytes_max: 32 << 20,
        output_bytes_max: 1 << 20,
        runs_max,
    };
    let budget = Budget { seconds: 60, memory_bytes: 2 << 30, code_bytes: 32 << 20 };
    let workshop = Workshop::open(Equipment {
        compiler: Compiler::Child(env!("CARGO_BIN_EXE_hookyard").into(), budget),
        limits,
        forms: vec![Purpose::Serve, Purpose::Measure],
        folder: folder.to_owned(),
        key: [7; 32],
        // The standard plugins are in the router.
        files: Box::new(|digest| {
            Ok(Some(work::empty().into()).filter(|it: &Bytes| Digest::of(it) == digest))
        }),
        hour_max: Duration::MAX,
    })?;
    let kept = CodeBytes { plugins_max: 96 << 20, images_max: 64 << 20 };
    Runtime::new(&workshop, Purpose::Serve, kept)
}

fn clocked<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

fn run(runtime: &Runtime, event: &Arc<Event>, step: &Step) -> Outcome {
    let addressee = Addressee { subscription: "s", format: "cloudevents", locale: None };
    runtime.run(event, std::slice::from_ref(step), &addressee).unwrap().outcome
}

fn millis(it: Duration) -> f64 {
    it.as_secs_f64() * 1e3
}

fn add_loading(report: &mut Report, folder: &Path, plugin: &Work, digest: Digest, making: Making) {
    // What the first call on a new engine takes beyond the second: that is loading.
    let loads = (0..BATCHES).map(|_| {
        let runtime = open(folder, 4, 5);
        // A configuration that has no image.
        let step = Step::new(digest, format!("{}\n", plugin.config));
        let call = || _ = runtime.try_configuration(&step, &None).unwrap();
        let ((), first) = clocked(call);
        let ((), second) = clocked(call);
        millis(first.saturating_sub(second))
    });
    let loads = Rounds(loads.collect());
    let code = code_file(folder, digest).unwrap();
    let read = || clocked(|| black_box(fs::read(&code).unwrap().len()));
    let reads = Rounds((0..BATCHES).map(|_| millis(read().1)).collect());
    let mut add = |what: &str, unit, values, limit, target| {
        report.add(Row {
            group: "Plugins: compiling and loading",
            name: format!("{}, {what}", plugin.name),
            unit,
            values,
            limit,
            target,
        });
    };
    let kib = |bytes: usize| Rounds(vec![bytes as f64 / 1_024.0]);
    add("file", "KiB", kib(plugin.file.len()), None, "");
    add("code", "KiB", kib(read().0), None, "");
    add("upload, all of it", "ms", making.upload, None, "");
    add("compiling", "ms", making.compiling, None, "");
    add("image of a configuration", "ms", making.image, None, "");
    add("load", "ms", loads, Some(("reading it", reads)), "≤ 0.3");
}

/// Runs a step until it has an image. Answers how long that took.
fn make_image(runtime: &Runtime, folder: &Path, step: &Step, event: &Arc<Event>) -> Duration {
    let start = Instant::now();
    for _ in 0..RUNS_FOR_IMAGE {
        black_box(run(runtime, event, step));
    }
    let name = Digest::of(&[&step.plugin.0[..], step.config.as_bytes()].concat());
    let is_there = || code_file(folder, name).is_some();
    while !is_there() && start.elapsed() < IMAGE_PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    let took = start.elapsed();
    assert!(took < IMAGE_PATIENCE, "there is no image of {}", step.plugin);
    // It is loaded in a moment.
    thread::sleep(Duration::from_millis(100));
    took
}

/// Where compiled code is in the cache, once it is all there.
fn code_file(folder: &Path, name: Digest) -> Option<PathBuf> {
    let name = name.to_string();
    let files = fs::read_dir(folder).unwrap().map(|it| it.unwrap());
    let mut found = files.filter(|it| {
        let file = it.file_name().into_string().unwrap();
        // As long as it is not finished, it has a longer name.
        file.starts_with(&name[7..]) && file.matches("wasmtime").count() == 1
    });
    found.next().map(|it| it.path())
}

/// Microseconds for one of a batch.
fn each(mut work: impl FnMut()) -> f64 {
    let ((), took) = clocked(|| (0..BATCH).for_each(|_| work()));
    took.as_secs_f64() * 1e6 / f64::from(BATCH)
}

fn add_runs(report: &mut Report, runtime: &Runtime, plugin: &Work, digest: Digest, size: usize) {
    let event = work::event(size);
    let step = Step::new(digest, plugin.config.clone());
    let data = event.content.data.as_ref().unwrap().bytes();
    let sizes_before = plugin.sizes.iter().take_while(|it| **it < size).count();
    let (mut configured, mut image, mut native) =
        (Rounds::default(), Rounds::default(), Rounds::default());
    // In turn, so that what else the machine does is the same for all of them.
    for batch in 1..=BATCHES {
        // With one more space it is another configuration, which has been run by nobody.
        let spaces = " ".repeat(sizes_before * BATCHES + batch);
        let other = Step::new(digest, format!("{}{spaces}", step.config));
        let outcome = run(runtime, &event, &other);
        assert!(!matches!(outcome, Outcome::Fail(_)), "{}: {outcome:?}", plugin.name);
        configured.0.push(each(|| _ = black_box(run(runtime, &event, &other))));
        image.0.push(each(|| _ = black_box(run(runtime, &event, &step))));
        let work = |native: native::Native| each(|| _ = black_box(native(black_box(data))));
        native.0.extend(plugin.native.map(work));
    }
    let limit = plugin.native.map(|_| ("native", native));
    let targets = plugin.targets.iter().find(|(of, _)| *of == size);
    let mut add = |what: &str, values, target| {
        report.add(Row {
            group: "Plugins: a run, a fresh instance each",
            name: format!("{}, {size} KiB, {what}", plugin.name),
            unit: "µs",
            values,
            limit: limit.clone(),
            target,
        });
    };
    add("from an image", image, targets.map_or("", |(_, target)| target));
    add("configured in the run", configured, "");
}
