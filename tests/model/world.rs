//! What the router has to know, as simply as it can be said: who wanted what, and what it has to become.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::operation::{Draft, Wish};

/// An account.
pub(super) struct Tenant {
    pub(super) name: &'static str,
    pub(super) token: String,
    /// The versions of its plugin `gate`: the digest, and what each does.
    pub(super) versions: Vec<(String, Temper)>,
    /// Which of them is the current one.
    pub(super) current: usize,
    /// How many events it has published: each has the number before it as its id.
    pub(super) published: usize,
}

/// What a version of `gate` does with every event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Temper {
    Accepts,
    Rejects,
    Traps,
}

/// The steps of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pipeline {
    Plain,
    Minimized,
    /// Drops events with a lower number of dots.
    AtLeast(u64),
    /// A delivery for each item.
    Split,
    /// Follows the plugin `gate`.
    Gate,
}

/// What a pipeline is made of, with the version that it is pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rendering {
    Own(Pipeline),
    Gate(Temper),
}

/// What a rendering makes of an event.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Bodies(Vec<Value>),
    Filtered,
    Failed,
}

pub(super) struct Subscription {
    pub(super) tenant: usize,
    pub(super) id: String,
    pub(super) wishes: Vec<Wish>,
    pub(super) pipeline: Pipeline,
    pub(super) active: bool,
    pub(super) catch_up: bool,
    pub(super) deleted: bool,
    /// All that it has had, oldest first: each signs for longer than the test goes on.
    pub(super) secrets: Vec<String>,
    /// All that it has had, oldest first.
    pub(super) renderings: Vec<Rendering>,
    /// How many of its events were certainly dropped by a plugin.
    pub(super) filtered: u64,
}

/// An event that was accepted.
pub(super) struct Event {
    pub(super) tenant: usize,
    /// As published.
    pub(super) body: Value,
    /// The router's.
    pub(super) id: String,
}

/// What an event means for a subscription that wanted it when it was accepted.
pub(super) struct Owed {
    /// Which rendering the subscription had then.
    pub(super) rendering: usize,
    /// Which secret was the newest then.
    pub(super) secret: usize,
    /// It may have been rendered anew, because it had no body when it was replayed.
    pub(super) anew: bool,
}

/// A delivery that arrived.
pub(super) struct Arrival {
    pub(super) body_digest: String,
    /// It was answered with success at least once.
    pub(super) taken: bool,
}

/// See the head of this module. Everything is known by its place in these lists.
pub(super) struct World {
    pub(super) tenants: Vec<Tenant>,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) events: Vec<Event>,
    /// By the router's id.
    pub(super) by_id: HashMap<String, usize>,
    /// By the tenant, and the id that it gave them.
    pub(super) by_number: HashMap<(usize, usize), usize>,
    /// By subscription and event.
    pub(super) owed: HashMap<(usize, usize), Owed>,
    /// The same, in the order in which they came to be.
    pub(super) pairs: Vec<(usize, usize)>,
    /// By `webhook-id`.
    pub(super) arrived: HashMap<String, Arrival>,
    /// The `webhook-id` of a subscription, an event and a part.
    pub(super) webhook_ids: HashMap<(usize, usize, usize), String>,
    /// The tenant, and the id where it was begun at all.
    pub(super) replays: Vec<(usize, Option<String>)>,
    /// The first event of this round.
    pub(super) round: usize,
    pub(super) crashes: usize,
}

impl World {
    pub(super) fn new(tenants: Vec<Tenant>) -> World {
        World {
            tenants,
            subscriptions: Vec::new(),
            events: Vec::new(),
            by_id: HashMap::new(),
            by_number: HashMap::new(),
            owed: HashMap::new(),
            pairs: Vec::new(),
            arrived: HashMap::new(),
            webhook_ids: HashMap::new(),
            replays: Vec::new(),
            round: 0,
            crashes: 0,
        }
    }

    /// The subscriptions that there are, of one tenant or of all.
    pub(super) fn live(&self, tenant: Option<usize>) -> Vec<usize> {
        let all = self.subscriptions.iter().enumerate();
        let live = all.filter(|(_, it)| !it.deleted && tenant.is_none_or(|of| of == it.tenant));
        live.map(|(at, _)| at).collect()
    }

    /// The subscription of a delivery.
    pub(super) fn by_subscription(&self, delivery: &Value) -> usize {
        let found = self.subscriptions.iter().position(|it| delivery["subscription"] == *it.id);
        found.unwrap_or_else(|| panic!("{delivery} is for nobody"))
    }

    /// An event of a tenant as it is published; the tenants have the same ids.
    pub(super) fn body(&self, tenant: usize, draft: &Draft, number: usize) -> Value {
        json!({
            "specversion": "1.0",
            "id": number.to_string(),
            "source": "/model",
            "type": draft.event_type,
            "region": draft.region,
            "data": {
                "tenant": self.tenants[tenant].name,
                "dots": draft.dots,
                "more": "x".repeat(draft.more),
                "items": (0..draft.items).map(|it| json!({"item": it})).collect::<Vec<_>>(),
            },
        })
    }

    /// The router answered 202 for the first time.
    pub(super) fn accept(&mut self, tenant: usize, body: Value, id: &str) {
        let at = self.events.len();
        for (number, it) in self.subscriptions.iter_mut().enumerate() {
            let waits = it.active || it.catch_up;
            if it.deleted || it.tenant != tenant || !waits || !it.wants(&body) {
                continue;
            }
            let rendering = it.renderings.len() - 1;
            it.filtered += u64::from(it.renderings[rendering].outcome(&body) == Outcome::Filtered);
            let owed = Owed { rendering, secret: it.secrets.len() - 1, anew: false };
            self.owed.insert((number, at), owed);
            self.pairs.push((number, at));
        }
        assert!(self.by_id.insert(id.to_owned(), at).is_none(), "two events have the id {id}");
        self.by_number.insert((tenant, self.tenants[tenant].published), at);
        self.tenants[tenant].published += 1;
        self.events.push(Event { tenant, body, id: id.to_owned() });
    }

    /// A version of `gate` is the current one, for all who follow it.
    pub(super) fn make_current(&mut self, tenant: usize, version: usize) {
        self.tenants[tenant].current = version;
        for at in self.live(Some(tenant)) {
            if self.subscriptions[at].pipeline == Pipeline::Gate {
                self.set_pipeline(at, Pipeline::Gate);
            }
        }
    }

    pub(super) fn set_pipeline(&mut self, at: usize, pipeline: Pipeline) {
        let rendering = self.rendering(self.subscriptions[at].tenant, pipeline);
        let it = &mut self.subscriptions[at];
        it.pipeline = pipeline;
        it.renderings.push(rendering);
    }

    pub(super) fn rendering(&self, tenant: usize, pipeline: Pipeline) -> Rendering {
        let tenant = &self.tenants[tenant];
        match pipeline {
            Pipeline::Gate => Rendering::Gate(tenant.versions[tenant.current].1),
            Pipeline::Plain | Pipeline::Minimized | Pipeline::AtLeast(_) | Pipeline::Split => {
                Rendering::Own(pipeline)
            }
        }
    }

    /// What may have become of an event for a subscription: one thing, except where it was held, failed
    /// or filtered and rendered later, by what the subscription had then.
    pub(super) fn outcomes(&self, subscription: usize, event: usize) -> Vec<Outcome> {
        let Some(owed) = self.owed.get(&(subscription, event)) else { return Vec::new() };
        let body = &self.events[event].body;
        let renderings = &self.subscriptions[subscription].renderings[owed.rendering..];
        let many = self.is_late(subscription, event);
        let later = renderings[1..].iter().filter(|_| many);
        renderings[..1].iter().chain(later).map(|it| it.outcome(body)).collect()
    }

    /// Whether a delivery may have been rendered long after its event was accepted.
    fn is_late(&self, subscription: usize, event: usize) -> bool {
        let owed = &self.owed[&(subscription, event)];
        let first = self.subscriptions[subscription].renderings[owed.rendering];
        owed.anew || first == Rendering::Gate(Temper::Traps)
    }
}

impl Subscription {
    pub(super) fn path(at: usize) -> String {
        format!("/{at}")
    }

    fn wants(&self, event: &Value) -> bool {
        self.wishes.iter().any(|it| it.matches(event))
    }
}

impl Pipeline {
    pub(super) fn steps(self) -> Value {
        match self {
            Pipeline::Plain => json!([]),
            Pipeline::Minimized => {
                json!([{"plugin": "minimize", "config": {"remove": ["/more"]}}])
            }
            Pipeline::AtLeast(dots) => {
                json!([{"plugin": "filter", "config": {"when": {"at": "/dots", "gte": dots}}}])
            }
            Pipeline::Split => json!([{"plugin": "split", "config": {"at": "/items"}}]),
            Pipeline::Gate => json!([{"plugin": "gate"}]),
        }
    }
}

impl Rendering {
    pub(super) fn outcome(self, event: &Value) -> Outcome {
        let mut body = event.clone();
        match self {
            Rendering::Own(Pipeline::Minimized) => {
                body["data"].as_object_mut().unwrap().remove("more");
            }
            Rendering::Own(Pipeline::AtLeast(dots)) => {
                if event["data"]["dots"].as_u64().unwrap() < dots {
                    return Outcome::Filtered;
                }
            }
            Rendering::Own(Pipeline::Split) => {
                let items = event["data"]["items"].as_array().unwrap().iter().enumerate();
                let parts = items.map(|(part, item)| {
                    body["id"] = format!("{}.{}", event["id"].as_str().unwrap(), part + 1).into();
                    body["data"] = item.clone();
                    body.clone()
                });
                return Outcome::Bodies(parts.collect());
            }
            Rendering::Own(Pipeline::Plain | Pipeline::Gate) | Rendering::Gate(Temper::Accepts) => {
            }
            Rendering::Gate(Temper::Rejects) => return Outcome::Filtered,
            Rendering::Gate(Temper::Traps) => return Outcome::Failed,
        }
        Outcome::Bodies(vec![body])
    }
}
