//! What runs of plugins cost, beside the same work in native code. `make bench-wasm` prints the tables; no
//! time is a failure.
//!
//! A run is all of `Runtime::run` for one step: a fresh instance, the plugin, and what its verdict makes of
//! the event.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

mod held; // instances at the same time
mod native; // the same work without WebAssembly
mod work; // the plugins, their configurations, and events

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hookyard::event::Event;
use hookyard::plugin::Digest;
use hookyard::wasm::{
    Addressee, Budget, Compiler, Limits, Outcome, Purpose, Runtime, Step, Uploaded,
};

use work::Work;

/// Each time is the median of so many batches, and is shown with the fastest and the slowest of them.
const BATCHES: usize = 15;
/// The runs of a batch: fewer than those with which a configuration is worth an image.
const BATCH: u32 = 150;
/// Enough runs for an image to be made.
const RUNS_FOR_IMAGE: usize = 200;
const IMAGE_PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    println!("Linux {}, {cores} cores, {BATCHES} batches each: median (range)\n", kernel.trim());

    let runtime = open(folder.path(), 4, 5);
    let plugins = work::plugins();
    println!("Compiling and loading, in milliseconds");
    println!(
        "{:13} {:>9} {:>9} {:>9} {:>9} {:>9} {:>20}",
        "", "file", "code", "upload", "compile", "image", "load"
    );
    let mut digests = Vec::new();
    for plugin in &plugins {
        let (uploaded, upload) = clocked(|| runtime.upload(&plugin.file, false).unwrap());
        digests.push(uploaded.digest);
        show_loading(&runtime, folder.path(), plugin, &uploaded, upload);
    }
    println!("{:70} target: load ≤ 0.3\n", "");

    println!("A run, in microseconds");
    println!("{:20} {:>26} {:>26} {:>26}", "", "configured in each run", "from an image", "native");
    for (plugin, digest) in plugins.iter().zip(digests) {
        for size in &plugin.sizes {
            show_runs(&runtime, plugin, digest, *size);
        }
    }
    println!();
    held::show();
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
    let budget = Budget { seconds: 60, memory_bytes: 2 << 30 };
    let compiler = Compiler::Child(env!("CARGO_BIN_EXE_hookyard").into(), budget);
    // The standard plugins are in the router.
    let files = Box::new(|digest| {
        let file = work::empty();
        anyhow::ensure!(Digest::of(&file) == digest, "{digest} was not uploaded");
        Ok(file.into())
    });
    Runtime::new(limits, Purpose::Serve, compiler, folder, [7; 32], files)
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

fn show_loading(
    runtime: &Runtime,
    folder: &Path,
    plugin: &Work,
    uploaded: &Uploaded,
    upload: Duration,
) {
    let millis = |it: Duration| it.as_secs_f64() * 1e3;
    let step = Step { plugin: uploaded.digest, config: plugin.config.clone() };
    let image = make_image(runtime, folder, &step, &work::event(1));
    // What the first call on a new engine takes beyond the second: that is loading.
    let loads = (0..BATCHES).map(|_| {
        let runtime = open(folder, 4, 5);
        let call = || runtime.try_configuration(step.plugin, &step.config).unwrap();
        let ((), first) = clocked(call);
        let ((), second) = clocked(call);
        millis(first.saturating_sub(second))
    });
    println!(
        "{:13} {:>6} KB {:>6} KB {:>9.1} {:>9.1} {:>9.1} {:>20}",
        plugin.name,
        plugin.file.len() / 1_000,
        code_bytes(folder, uploaded.digest).unwrap() / 1_000,
        millis(upload),
        millis(uploaded.compile_time),
        millis(image),
        Spread::of(loads.collect()).show(3)
    );
}

/// Runs a step until it has an image. Answers how long that took.
fn make_image(runtime: &Runtime, folder: &Path, step: &Step, event: &Arc<Event>) -> Duration {
    let start = Instant::now();
    for _ in 0..RUNS_FOR_IMAGE {
        black_box(run(runtime, event, step));
    }
    let name = Digest::of(&[&step.plugin.0[..], step.config.as_bytes()].concat());
    let is_there = || code_bytes(folder, name).is_some();
    while !is_there() && start.elapsed() < IMAGE_PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    let took = start.elapsed();
    assert!(took < IMAGE_PATIENCE, "there is no image of {}", step.plugin);
    // It is loaded in a moment.
    thread::sleep(Duration::from_millis(100));
    took
}

/// The size of compiled code in the cache, where it is all there.
fn code_bytes(folder: &Path, name: Digest) -> Option<u64> {
    let name = name.to_string();
    let files = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap());
    let mut found = files.filter(|it| {
        let file = it.file_name().into_string().unwrap();
        // As long as it is not finished, it has a longer name.
        file.starts_with(&name[7..]) && file.matches("wasmtime").count() == 1
    });
    found.next().map(|it| it.metadata().unwrap().len())
}

/// How far apart batches were.
struct Spread(Vec<f64>);

impl Spread {
    fn of(mut batches: Vec<f64>) -> Spread {
        batches.sort_by(f64::total_cmp);
        Spread(batches)
    }

    fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    fn show(&self, digits: usize) -> String {
        let (least, most) = (self.0[0], self.0[self.0.len() - 1]);
        format!("{:.digits$} ({least:.digits$}–{most:.digits$})", self.median())
    }
}

/// Microseconds for one of a batch.
fn each(mut work: impl FnMut()) -> f64 {
    let ((), took) = clocked(|| (0..BATCH).for_each(|_| work()));
    took.as_secs_f64() * 1e6 / f64::from(BATCH)
}

fn show_runs(runtime: &Runtime, plugin: &Work, digest: Digest, size: usize) {
    let event = work::event(size);
    let step = Step { plugin: digest, config: plugin.config.clone() };
    let data = event.content.data.as_ref().unwrap().bytes();
    let sizes_before = plugin.sizes.iter().take_while(|it| **it < size).count();
    let (mut configured, mut image, mut native) = (vec![], vec![], vec![]);
    // In turn, so that what else the machine does is the same for all of them.
    for batch in 1..=BATCHES {
        // With one more space it is another configuration, which has been run by nobody.
        let spaces = " ".repeat(sizes_before * BATCHES + batch);
        let other = Step { plugin: digest, config: format!("{}{spaces}", step.config) };
        let outcome = run(runtime, &event, &other);
        assert!(!matches!(outcome, Outcome::Fail(_)), "{}: {outcome:?}", plugin.name);
        configured.push(each(|| _ = black_box(run(runtime, &event, &other))));
        image.push(each(|| _ = black_box(run(runtime, &event, &step))));
        native.extend(plugin.native.map(|native| each(|| _ = black_box(native(black_box(data))))));
    }
    let (configured, image) = (Spread::of(configured), Spread::of(image));
    let target = plugin.targets.iter().find(|(of, _)| *of == size).map(|(_, most)| {
        let met = if image.median() <= *most { "met" } else { "missed" };
        format!("target: image ≤ {most}, {met}")
    });
    println!(
        "{:13} {size:>2} KiB {:>26} {:>26} {:>26}   {}",
        plugin.name,
        configured.show(2),
        image.show(2),
        if native.is_empty() { "–".to_owned() } else { Spread::of(native).show(2) },
        target.unwrap_or_default()
    );
}
