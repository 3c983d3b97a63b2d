//! Which configurations of a plugin have an image: those that are run again and again. Making one takes
//! a compiler some time, so it happens in the background; until then, and where it is not possible,
//! `configure` is called before each run. What a run answers is the same either way.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak, mpsc};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use super::compiler::Job;
use super::run::Loaded;
use super::standard::JAVASCRIPT;
use super::{Fault, Refusal, Runtime, Step};
use crate::plugin::Digest;

/// The run of a configuration with which it is worth an image.
const RUNS_MIN: u32 = 200;
/// How many configurations of one plugin are counted.
const COUNTED_MAX: usize = 4_096;
/// How large one image may be, and all of them.
const IMAGE_BYTES_MAX: usize = 16 << 20;
const IMAGES_BYTES_MAX: usize = 256 << 20;
/// How many wait to be made. Whoever finds no place comes again.
const WAITING_MAX: usize = 64;

/// The images of one plugin, by the configuration.
#[derive(Default)]
pub(super) struct Images(RwLock<HashMap<String, Image>>);

enum Image {
    /// How often it has been run.
    Counted(AtomicU32),
    Made {
        image: Arc<Loaded>,
        /// Whether it has been run since somebody looked for room.
        used: AtomicBool,
    },
    /// It was tried.
    Impossible,
}

impl Images {
    /// The image of a configuration. `worth` is called when there should be one.
    fn get(&self, config: &str, worth: impl FnOnce()) -> Option<Arc<Loaded>> {
        let images = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match images.get(config) {
            Some(Image::Made { image, used }) => {
                used.store(true, Ordering::Relaxed);
                return Some(Arc::clone(image));
            }
            Some(Image::Impossible) => return None,
            Some(Image::Counted(runs)) => {
                // Again after as many runs where nothing has come of it.
                if (runs.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(RUNS_MIN) {
                    worth();
                }
                return None;
            }
            None => {}
        }
        let room = images.len() < COUNTED_MAX;
        drop(images);
        if room {
            self.put(config.to_owned(), Image::Counted(AtomicU32::new(1)));
        }
        None
    }

    /// Whether an image is still to be made: the order may have come twice.
    fn has_none(&self, config: &str) -> bool {
        let images = self.0.read().unwrap_or_else(PoisonError::into_inner);
        !matches!(images.get(config), Some(Image::Made { .. } | Image::Impossible))
    }

    /// Whether an image has been run since it was asked last.
    fn was_used(&self, config: &str) -> bool {
        let images = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match images.get(config) {
            Some(Image::Made { used, .. }) => used.swap(false, Ordering::Relaxed),
            _ => false,
        }
    }

    fn put(&self, config: String, image: Image) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(config, image);
    }
}

/// The thread that makes images.
pub(super) struct Maker {
    orders: Option<mpsc::SyncSender<Step>>,
    thread: Option<JoinHandle<()>>,
}

/// The images that there are, oldest first.
#[derive(Default)]
struct Made {
    images: VecDeque<(Weak<Loaded>, String, usize)>,
    bytes: usize,
}

impl Made {
    /// Makes room for so many bytes by forgetting what is not run any more. Answers whether there is.
    fn make_room(&mut self, bytes: usize) -> bool {
        for _ in 0..self.images.len() {
            if self.bytes + bytes <= IMAGES_BYTES_MAX {
                break;
            }
            let Some((plugin, config, size)) = self.images.pop_front() else { break };
            // A plugin that is not loaded any more has taken its images along.
            let present = plugin.upgrade();
            if present.as_ref().is_some_and(|it| it.images.was_used(&config)) {
                self.images.push_back((plugin, config, size));
                continue;
            }
            self.bytes -= size;
            present.inspect(|it| it.images.put(config, Image::Counted(AtomicU32::new(0))));
        }
        self.bytes + bytes <= IMAGES_BYTES_MAX
    }

    fn add(&mut self, plugin: &Arc<Loaded>, config: String, image: Arc<Loaded>) {
        if !self.make_room(image.bytes) {
            return;
        }
        self.bytes += image.bytes;
        self.images.push_back((Arc::downgrade(plugin), config.clone(), image.bytes));
        plugin.images.put(config, Image::Made { image, used: AtomicBool::new(true) });
    }
}

impl Maker {
    pub(super) fn start(runtime: Weak<Runtime>) -> std::io::Result<Maker> {
        let (orders, wait) = mpsc::sync_channel::<Step>(WAITING_MAX);
        let thread = thread::Builder::new().name("plugin-images".to_owned()).spawn(move || {
            let mut made = Made::default();
            for step in wait {
                let Some(runtime) = runtime.upgrade() else { return };
                let Ok(plugin) = runtime.plugin(step.plugin) else { continue };
                if !plugin.images.has_none(&step.config) || !made.make_room(plugin.bytes) {
                    continue;
                }
                match runtime.make_image(&plugin, &step) {
                    Ok(image) => made.add(&plugin, step.config, image),
                    Err(why) => {
                        tracing::info!(plugin = %step.plugin, %why, "runs without an image");
                        plugin.images.put(step.config, Image::Impossible);
                    }
                }
            }
        })?;
        Ok(Maker { orders: Some(orders), thread: Some(thread) })
    }

    fn order(&self, step: &Step) {
        if let Some(orders) = &self.orders {
            // Without a place, it is ordered again later.
            let _ = orders.try_send(step.clone());
        }
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.orders.take();
        let thread = self.thread.take();
        // The last to hold the runtime may be this very thread.
        if let Some(thread) = thread.filter(|it| it.thread().id() != thread::current().id()) {
            // A maker that panicked has nothing left to stop.
            let _ = thread.join();
        }
    }
}

impl Runtime {
    /// What a step runs, and the configuration that it still has to take.
    pub(super) fn configured<'a>(
        &self,
        step: &'a Step,
    ) -> Result<(Arc<Loaded>, Option<&'a str>), Fault> {
        let plugin = self.plugin(step.plugin)?;
        let order = || _ = self.maker.get().map(|maker| maker.order(step));
        match plugin.images.get(&step.config, order) {
            Some(image) => Ok((image, None)),
            None => Ok((plugin, Some(&step.config))),
        }
    }

    /// The image of a plugin with a configuration.
    fn make_image(&self, plugin: &Loaded, step: &Step) -> Result<Arc<Loaded>, Refusal> {
        let name = Digest::of(&[&step.plugin.0[..], step.config.as_bytes()].concat());
        let image = match self.cache.load(&self.machine.engine, name) {
            Some((component, about)) => Loaded::new(&self.machine, &component, about.manifest)?,
            None => {
                let config = plugin.whole_config(&step.config).into_owned();
                let job = Job { config: Some(config), ..self.job() };
                let file = match plugin.script {
                    Some(_) => Bytes::from_static(JAVASCRIPT),
                    None => self.file(step.plugin)?,
                };
                self.compile(job, name, &file)?.0
            }
        };
        let bytes = image.bytes;
        if bytes > IMAGE_BYTES_MAX {
            let detail = format!("an image of {bytes} bytes; at most {IMAGE_BYTES_MAX}");
            return Err(Refusal::new("no-image", detail));
        }
        Ok(Arc::new(image))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::{Attributes, Content, Data, Event, Tenant};
    use crate::json::Json;
    use crate::wasm::tests::runtime;
    use crate::wasm::{Addressee, Outcome, STANDARD_PLUGINS};

    fn event(data: &'static str) -> Arc<Event> {
        let pairs = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let data = Some(Data::Json(Json::parse(Bytes::from_static(data.as_bytes())).unwrap()));
        Arc::new(Event {
            id: Uuid::nil(),
            tenant: Tenant::new("t").unwrap(),
            format: "cloudevents",
            content: Arc::new(Content { attributes: Attributes::new(pairs).unwrap(), data }),
            alternate_ids: vec![("Loyalty".to_owned(), "L-7".to_owned())],
            accepted_at_ms: 0,
            revision: 0,
        })
    }

    fn run(runtime: &Runtime, event: &Arc<Event>, step: &Step) -> Outcome {
        let addressee = Addressee { subscription: "", format: "cloudevents", locale: None };
        runtime.run(event, std::slice::from_ref(step), &addressee).unwrap().outcome
    }

    #[test]
    fn an_image_answers_what_the_plugin_answers_that_is_configured_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = runtime(folder.path());
        let configs = [
            ("minimize", r#"{"remove": ["/mail"]}"#),
            ("filter", r#"{"when": {"at": "/amount", "gte": 100}}"#),
            ("redact", r#"{"fields": ["mail"], "with": "hash", "salt": "s"}"#),
            ("sample", r#"{"percent": 50, "by": "/mail"}"#),
            ("split", r#"{"at": "/lines"}"#),
            ("alternate-id", r#"{"kind": "Loyalty", "put": "/mail"}"#),
            (
                "javascript",
                r#"{"script": "const transform = (event, config) => replace({set: {n: `${++n}`}, edits: {'/mail': config}}); let n = 0", "config": "x"}"#,
            ),
        ];
        let events = [
            event(r#"{"amount":99,"mail":"a@example.com","lines":[1,2]}"#),
            event(r#"{"amount":100,"mail":"b@example.com","lines":[]}"#),
            event("[]"),
        ];
        for (name, config) in configs {
            let (_, file) = STANDARD_PLUGINS.iter().find(|(it, _)| *it == name).unwrap();
            let step = Step { plugin: Digest::of(file), config: config.to_owned() };
            let before: Vec<_> = events.iter().map(|it| run(&runtime, it, &step)).collect();
            let plugin = runtime.plugin(step.plugin).unwrap();
            let image = runtime.make_image(&plugin, &step);
            let image = image.unwrap_or_else(|why| panic!("{name}: {why}"));
            Made::default().add(&plugin, step.config.clone(), image);
            assert!(runtime.configured(&step).unwrap().1.is_none(), "{name} is configured anew");
            let after: Vec<_> = events.iter().map(|it| run(&runtime, it, &step)).collect();
            assert_eq!(before, after, "{name}");
        }
    }
}
