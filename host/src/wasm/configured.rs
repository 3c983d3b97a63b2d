//! Which configurations of a plugin have an image, so that runs begin where `configure` has ended: those that
//! are run again and again, and those that take so long that no run could bear it. Until there is an image,
//! and where there can be none, `configure` is called in each run. What a run answers is the same either way.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::rendering::Step;

use super::compiler::About;
use super::lane::Rank;
use super::loaded::Loaded;
use super::runtime::Here;
use super::standard::JAVASCRIPT;
use super::workshop::{lock, shortened};
use super::{Fault, Purpose, Refusal, Runtime};
use crate::fair::{Cache, Owner};

/// The run of a configuration with which it is worth an image.
const RUNS_MIN: u32 = 200;
/// Of how many configurations something is known.
const KNOWN_MAX: usize = 16_384;

/// What is known of configurations, by the names of their steps.
pub(super) struct Images {
    made: Cache<Digest, Arc<Loaded>>,
    known: Cache<Digest, Known>,
}

enum Known {
    /// How often it has been run without an image.
    Run(u32),
    /// Runs cannot bear it without an image, which is being made.
    Needed,
    /// There was no room any more for its image, which may be on disk.
    Gone,
    /// There can be none, for this reason.
    Impossible(String),
}

enum Found {
    Image(Arc<Loaded>),
    /// There is none, at so many runs.
    None(u32),
    /// There has to be one.
    Needed,
    /// Nobody has looked on disk yet.
    Unknown,
}

impl Images {
    pub(super) fn new(bytes_max: usize) -> Images {
        Images { made: Cache::new(bytes_max), known: Cache::new(KNOWN_MAX) }
    }

    /// Counts a run.
    fn find(&mut self, name: Digest, owner: &Owner) -> Found {
        if let Some(image) = self.made.get(&name) {
            return Found::Image(Arc::clone(image));
        }
        match self.known.get(&name) {
            Some(Known::Run(runs)) => {
                *runs = runs.saturating_add(1);
                Found::None(*runs)
            }
            Some(Known::Impossible(_)) => Found::None(0),
            Some(Known::Needed) => Found::Needed,
            Some(Known::Gone) | None => {
                self.known.put(owner, name, 1, Known::Run(1));
                Found::Unknown
            }
        }
    }

    fn put(
        &mut self,
        name: Digest,
        owner: &Owner,
        image: Arc<Loaded>,
    ) -> Vec<(Digest, Arc<Loaded>)> {
        self.known.remove(&name);
        let gone = self.made.put(owner, name, image.bytes, image);
        for (name, _) in &gone {
            self.known.put(owner, *name, 1, Known::Gone);
        }
        gone
    }

    fn impossible(&mut self, name: Digest) -> Option<&str> {
        match self.known.get(&name) {
            Some(Known::Impossible(why)) => Some(why),
            Some(Known::Run(_) | Known::Needed | Known::Gone) | None => None,
        }
    }

    fn is_needed(&mut self, name: Digest) -> bool {
        matches!(self.known.get(&name), Some(Known::Needed))
    }
}

/// A configuration that takes too much of a run's time to be taken in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// What `configure` takes, with the making of the instance.
    pub took: Duration,
    /// What a run may take, and what of that is for `configure`.
    pub budget: Duration,
    pub configure_max: Duration,
}

impl Runtime {
    /// Tries whether a plugin takes a configuration that fits its schema. Answers that this takes long, where no
    /// run could bear it and there is no image yet with which they can.
    ///
    /// # Errors
    ///
    /// What the plugin says against it, or why it could not be asked.
    pub fn try_configuration(&self, step: &Step, tenant: &Owner) -> Result<Option<Slow>, Fault> {
        let mut here = Here::new();
        let image = self.image(step, tenant, &mut here)?;
        let plugin = match &image {
            Some(image) => Arc::clone(image),
            None => self.plugin(step.plugin, tenant, &mut here)?,
        };
        let config = if image.is_some() { None } else { Some(&*step.config) };
        let (budget, configure_max) =
            (plugin.budget(&self.machine.limits), self.configure_max(&plugin));
        let configure = |budget| plugin.configure(&self.machine, config, budget);
        // The first time, code and memory have to be fetched.
        for _ in 0..2 {
            match configure(budget) {
                Ok(took) if took <= configure_max => return Ok(None),
                Ok(_) | Err(Fault::Time { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        let took = configure(self.machine.limits.configure_budget())?;
        Ok(Some(Slow { took, budget, configure_max }))
    }

    /// What a step runs, and the configuration that it still has to take.
    pub(super) fn configured<'a>(
        &self,
        step: &'a Step,
        tenant: &Owner,
        here: &mut Here,
    ) -> Result<(Arc<Loaded>, Option<&'a str>), Fault> {
        // Where runs are measured, each of them is to cost all that it costs.
        if self.machine.purpose == Purpose::Serve {
            let found = lock(&self.images).find(step.name(), tenant);
            match found {
                Found::Image(image) => return Ok((image, None)),
                Found::Unknown => {
                    if let Some(image) = self.load_small_image(step, tenant, here)? {
                        return Ok((image, None));
                    }
                }
                // Again after as many runs where nothing has come of it.
                Found::None(runs) if runs > 0 && runs.is_multiple_of(RUNS_MIN) => {
                    if self.workshop.hour_is_over(tenant).is_none() {
                        self.order_image(step, tenant, Rank::Worth);
                    }
                }
                Found::None(_) => {}
                Found::Needed => return Err(self.order_image(step, tenant, Rank::Needed)),
            }
        }
        Ok((self.plugin(step.plugin, tenant, here)?, Some(&step.config)))
    }

    /// The image, where there is one.
    fn image(
        &self,
        step: &Step,
        tenant: &Owner,
        here: &mut Here,
    ) -> Result<Option<Arc<Loaded>>, Fault> {
        let found = lock(&self.images).find(step.name(), tenant);
        match found {
            Found::Image(image) => Ok(Some(image)),
            Found::None(_) | Found::Needed => Ok(None),
            Found::Unknown => self.load_small_image(step, tenant, here),
        }
    }

    /// What becomes of a run whose time was over before its plugin was called.
    pub(super) fn too_slow(&self, step: &Step, tenant: &Owner, budget_ms: u128) -> Fault {
        if let Some(why) = lock(&self.images).impossible(step.name()) {
            return Fault::Start { budget_ms, why: why.to_owned() };
        }
        lock(&self.images).known.put(tenant, step.name(), 1, Known::Needed);
        self.order_image(step, tenant, Rank::Needed)
    }

    /// Whether something that these steps miss is being made: then there is no use in running them.
    pub fn is_waiting_for(&self, steps: &[Step], tenant: &Owner) -> bool {
        let is_made = |owner: &Owner, name| match self.workshop.standing(owner, name) {
            Err(fault) => fault.is_ours(),
            Ok(()) => false,
        };
        steps.iter().any(|step| {
            let payer = self.workshop.payer(step.plugin, tenant);
            !self.is_loaded(step.plugin) && is_made(&payer, step.plugin)
                || lock(&self.images).is_needed(step.name()) && is_made(tenant, step.name())
        })
    }

    fn order_image(&self, step: &Step, tenant: &Owner, rank: Rank) -> Fault {
        let name = step.name();
        if let Err(fault) = self.workshop.standing(tenant, name) {
            return fault;
        }
        let (me, step, owner) = (Weak::clone(&self.me), step.clone(), tenant.clone());
        self.workshop.order(tenant, name, rank, step.config.len(), move || {
            let Some(me) = me.upgrade() else { return Ok(()) };
            match me.make_image(&step, &owner) {
                Err(refusal) if refusal.is_ours() => Err(refusal),
                // What it cannot be is known then.
                Ok(_) | Err(_) => Ok(()),
            }
        })
    }

    fn order_loading_image(&self, step: &Step, tenant: &Owner) -> Fault {
        let name = step.name();
        if let Err(fault) = self.workshop.standing(tenant, name) {
            return fault;
        }
        let (me, step, owner) = (Weak::clone(&self.me), step.clone(), tenant.clone());
        self.workshop.order(tenant, name, Rank::OnDisk, step.config.len(), move || {
            // Where there is none any more, runs go on without it.
            me.upgrade().map_or(Ok(()), |me| Ok(me.load_image(&step, &owner).map(|_| ())?))
        })
    }

    /// Loads the image that is on disk; none where there is none. One that is too large for that is ordered.
    fn load_small_image(
        &self,
        step: &Step,
        tenant: &Owner,
        here: &mut Here,
    ) -> Result<Option<Arc<Loaded>>, Fault> {
        let size = self.workshop.cache(Purpose::Serve).size(step.name());
        if size.is_some() && !here.loads(size) {
            return Err(self.order_loading_image(step, tenant));
        }
        Ok(self.load_image(step, tenant)?.map(|(image, _)| image))
    }

    fn load_image(
        &self,
        step: &Step,
        tenant: &Owner,
    ) -> Result<Option<(Arc<Loaded>, About)>, Fault> {
        let cached = self.workshop.cache(Purpose::Serve).load(step.name());
        let Some(cached) = cached else { return Ok(None) };
        let component = match cached.component(&self.machine.engine) {
            Ok(component) => component,
            Err(err) => {
                self.workshop.cache(Purpose::Serve).give_up(step.name(), &format!("{err:#}"));
                return Ok(None);
            }
        };
        let image = Loaded::new(&self.machine, &component, cached.about.manifest.clone())?;
        let image = Arc::new(image);
        let gone = lock(&self.images).put(step.name(), tenant, Arc::clone(&image));
        // To unmap code takes a moment, in which nobody has to wait for the lock.
        drop(gone);
        Ok(Some((image, cached.about)))
    }

    /// Makes the image of a step, or loads it. Takes long: for the lane alone. Answers what an instance of it
    /// takes.
    ///
    /// # Errors
    ///
    /// There can be none, or not now.
    pub fn make_image(&self, step: &Step, tenant: &Owner) -> Result<Duration, Refusal> {
        let made = self.made_image(step, tenant);
        if let Err(refusal) = &made
            && !refusal.is_ours()
        {
            tracing::info!(plugin = %step.plugin, why = refusal.detail, "runs without an image");
            let why = format!("no image can be made of it: {}", shortened(&refusal.detail));
            lock(&self.images).known.put(tenant, step.name(), 1, Known::Impossible(why));
        }
        made
    }

    fn made_image(&self, step: &Step, tenant: &Owner) -> Result<Duration, Refusal> {
        if let Some((_, about)) = self.load_image(step, tenant)? {
            return Ok(about.empty_run_time);
        }
        let plugin = self.make(step.plugin, &self.workshop.payer(step.plugin, tenant))?;
        let config = plugin.whole_config(&step.config).into_owned();
        let file = match plugin.script {
            Some(_) => Bytes::from_static(JAVASCRIPT),
            None => self.workshop.file(step.plugin)?,
        };
        self.workshop.compile_image(tenant, step.name(), &file, config)?;
        let image = self.load_image(step, tenant)?;
        let (_, about) =
            image.ok_or_else(|| Fault::Host("an image that was made cannot be read".to_owned()))?;
        Ok(about.empty_run_time)
    }
}

#[cfg(test)]
mod tests {
    use hookyard_nouns::event::{Attributes, Content, Data, Event, Tenant};
    use hookyard_nouns::json::Json;
    use uuid::Uuid;

    use super::*;
    use crate::wasm::tests::{await_end, hold_compilers, runtime};
    use crate::wasm::{Addressee, Outcome, STANDARD_PLUGINS};

    fn tenant() -> Owner {
        Some(Tenant::new("t").unwrap())
    }

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
            let step = Step::new(Digest::of(file), config);
            runtime.prepare(std::slice::from_ref(&step)).unwrap();
            let before: Vec<_> = events.iter().map(|it| run(&runtime, it, &step)).collect();
            let image = runtime.make_image(&step, &tenant());
            image.unwrap_or_else(|why| panic!("{name}: {why}"));
            let configured = runtime.configured(&step, &tenant(), &mut Here::new()).unwrap();
            assert!(configured.1.is_none(), "{name} is configured anew");
            let after: Vec<_> = events.iter().map(|it| run(&runtime, it, &step)).collect();
            assert_eq!(before, after, "{name}");
        }
    }

    #[test]
    fn an_image_on_disk_waits_for_no_compiler() {
        let folder = tempfile::tempdir().unwrap();
        let (_, file) = STANDARD_PLUGINS.iter().find(|(it, _)| *it == "sample").unwrap();
        let step = Step::new(Digest::of(file), r#"{"percent": 50, "by": "/mail"}"#);
        let first = runtime(folder.path());
        first.prepare(std::slice::from_ref(&step)).unwrap();
        first.make_image(&step, &tenant()).unwrap();
        let runtime = runtime(folder.path());
        let held = hold_compilers(&runtime);
        await_end(runtime.order_loading_image(&step, &tenant()));
        assert!(runtime.configured(&step, &tenant(), &mut Here::new()).unwrap().1.is_none());
        drop(held);
    }
}
