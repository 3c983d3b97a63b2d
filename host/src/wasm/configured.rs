//! Which configurations of a plugin have an image: those that are run again and again. Making one takes
//! a compiler some time, so it happens in the background; until then, and where it is not possible,
//! `configure` is called before each run. What a run answers is the same either way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
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
/// How many configurations of one plugin are counted, and how many images there are in all.
const COUNTED_MAX: usize = 4_096;
const IMAGES_MAX: usize = 1_024;
/// How many wait to be made. Whoever finds no place comes again.
const WAITING_MAX: usize = 64;

/// The images of one plugin, by the configuration.
#[derive(Default)]
pub(super) struct Images(RwLock<HashMap<String, Image>>);

enum Image {
    /// How often it has been run.
    Counted(AtomicU32),
    Made(Arc<Loaded>),
    /// It was tried.
    Impossible,
}

impl Images {
    /// The image of a configuration. `worth` is called when there should be one.
    fn get(&self, config: &str, worth: impl FnOnce()) -> Option<Arc<Loaded>> {
        let images = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match images.get(config) {
            Some(Image::Made(image)) => return Some(Arc::clone(image)),
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

    fn put(&self, config: String, image: Image) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(config, image);
    }
}

/// The thread that makes images.
pub(super) struct Maker {
    orders: Option<mpsc::SyncSender<Step>>,
    thread: Option<JoinHandle<()>>,
    made: Arc<AtomicUsize>,
}

impl Maker {
    pub(super) fn start(runtime: Weak<Runtime>) -> std::io::Result<Maker> {
        let (orders, wait) = mpsc::sync_channel::<Step>(WAITING_MAX);
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let thread = thread::Builder::new().name("plugin-images".to_owned()).spawn(move || {
            for step in wait {
                let Some(runtime) = runtime.upgrade() else { return };
                match runtime.make_image(&step) {
                    Ok(()) => _ = count.fetch_add(1, Ordering::Relaxed),
                    Err(why) => {
                        tracing::info!(plugin = %step.plugin, %why, "runs without an image");
                        if let Ok(plugin) = runtime.plugin(step.plugin) {
                            plugin.images.put(step.config, Image::Impossible);
                        }
                    }
                }
            }
        })?;
        Ok(Maker { orders: Some(orders), thread: Some(thread), made })
    }

    fn order(&self, step: &Step) {
        if self.made.load(Ordering::Relaxed) < IMAGES_MAX
            && let Some(orders) = &self.orders
        {
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

    /// Makes the image of a plugin with a configuration, unless it has been made before.
    pub(super) fn make_image(&self, step: &Step) -> Result<(), Refusal> {
        let plugin = self.plugin(step.plugin)?;
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
                self.compile(&job, name, &file)?.0
            }
        };
        plugin.images.put(step.config.clone(), Image::Made(Arc::new(image)));
        Ok(())
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
            runtime.make_image(&step).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert!(runtime.configured(&step).unwrap().1.is_none(), "{name} is configured anew");
            let after: Vec<_> = events.iter().map(|it| run(&runtime, it, &step)).collect();
            assert_eq!(before, after, "{name}");
        }
    }
}
