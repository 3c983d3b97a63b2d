//! Which subscriptions want an event.
//!
//! A tenant's subscriptions are found by the event's type: exact types by hash, patterns segment by
//! segment. Within a type they are found by the value of one attribute that they select by. So the
//! cost of a look-up follows the subscriptions that match and not those that exist.
//!
//! Every state of a subscription is kept with the revisions between which it holds, and an event is
//! matched at its own revision: however late it is routed, the answer is the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hookyard_nouns::event::{Event, OPERATIONAL_PREFIX, Tenant};
use hookyard_nouns::subscription::{Filter, State, Subscription};
use uuid::Uuid;

/// Subscriptions as they are and as they were, found by what an event is.
#[derive(Default)]
pub struct Index {
    tenants: HashMap<Tenant, Node>,
    /// The state of each subscription that holds now.
    current: HashMap<Uuid, Arc<Version>>,
    /// How many states are kept that no longer hold.
    ended: usize,
}

/// One state of a subscription.
#[derive(Debug)]
struct Version {
    subscription: Arc<Subscription>,
    /// The first revision at which it no longer holds.
    ended: AtomicU64,
}

/// The subscriptions of a tenant by the segments of their patterns.
#[derive(Default)]
struct Node {
    /// Patterns without `*`, whole. Only in the root.
    exact: HashMap<String, Bucket>,
    segments: HashMap<String, Node>,
    star: Option<Box<Node>>,
    /// Patterns that end here.
    here: Bucket,
    /// Patterns that end here with a `*`, which stands for one or more segments.
    rest: Bucket,
}

/// Subscriptions to one type or pattern.
#[derive(Default)]
struct Bucket {
    /// Those that take any event of the type.
    any: Vec<Entry>,
    /// Those that select: attribute, value.
    by: HashMap<String, HashMap<String, Vec<Entry>>>,
}

#[derive(Clone)]
struct Entry {
    version: Arc<Version>,
    /// Which of the subscription's filters this is.
    filter: usize,
}

impl Index {
    /// Takes a new state of a subscription, which ends the one before it.
    pub fn put(&mut self, subscription: Arc<Subscription>) {
        self.end(subscription.id, subscription.revision);
        let version = Arc::new(Version {
            subscription: Arc::clone(&subscription),
            ended: AtomicU64::new(u64::MAX),
        });
        self.current.insert(subscription.id, Arc::clone(&version));
        let wanted = match subscription.state {
            State::Active => true,
            State::Paused => subscription.catch_up,
            State::Disabled => false,
        };
        if !wanted {
            return;
        }
        let root = self.tenants.entry(subscription.tenant.clone()).or_default();
        for (at, filter) in subscription.filters.iter().enumerate() {
            let entry = Entry { version: Arc::clone(&version), filter: at };
            root.bucket(filter).insert(filter, &entry);
        }
    }

    /// The subscription is no more, from a revision on.
    pub fn end(&mut self, id: Uuid, revision: u64) {
        if let Some(version) = self.current.remove(&id) {
            version.ended.store(revision, Ordering::Relaxed);
            self.ended += 1;
        }
    }

    /// The states that hold now.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.current.values().map(|version| &version.subscription)
    }

    /// The state that holds now.
    pub fn current(&self, id: Uuid) -> Option<&Arc<Subscription>> {
        self.current.get(&id).map(|version| &version.subscription)
    }

    /// The subscriptions that wanted an event when it was accepted, each once.
    pub fn matching(&self, event: &Event) -> Vec<Arc<Subscription>> {
        let mut found = Vec::new();
        if let Some(root) = self.tenants.get(&event.tenant) {
            let event_type = &event.content.attributes.event_type;
            if let Some(bucket) = root.exact.get(event_type) {
                bucket.collect(event, &mut found);
            }
            // Whoever wants everything wants everything that is published, and not our own events.
            match event_type.strip_prefix(OPERATIONAL_PREFIX) {
                None => root.walk(Some(event_type), event, &mut found),
                Some(rest) => {
                    let own = OPERATIONAL_PREFIX.trim_end_matches('.');
                    let own = root.segments.get(own);
                    own.inspect(|node| node.walk(Some(rest), event, &mut found));
                }
            }
        }
        if found.len() > 1 {
            found.sort_unstable_by_key(|it| it.id);
            found.dedup_by_key(|it| it.id);
        }
        found
    }

    /// Forgets the states that ended at or before a revision, once there are enough of them.
    pub fn prune(&mut self, revision: u64) {
        if self.ended < 1_024.max(self.current.len() / 4) {
            return;
        }
        let mut left = 0;
        for node in self.tenants.values_mut() {
            node.retain(&mut |entry| {
                let ended = entry.version.ended.load(Ordering::Relaxed);
                left += usize::from(ended != u64::MAX && revision < ended);
                revision < ended
            });
        }
        self.ended = left;
    }
}

impl Node {
    fn bucket(&mut self, filter: &Filter) -> &mut Bucket {
        let pattern = filter.types.as_str();
        if filter.types.is_exact() {
            return self.exact.entry(pattern.to_owned()).or_default();
        }
        let (path, rest) = match pattern.strip_suffix('*') {
            Some(path) => (path.strip_suffix('.').unwrap_or(path), true),
            None => (pattern, false),
        };
        let mut node = self;
        for segment in path.split('.').filter(|_| !path.is_empty()) {
            node = match segment {
                "*" => node.star.get_or_insert_default(),
                _ => node.segments.entry(segment.to_owned()).or_default(),
            };
        }
        if rest { &mut node.rest } else { &mut node.here }
    }

    fn walk(&self, remaining: Option<&str>, event: &Event, found: &mut Vec<Arc<Subscription>>) {
        let Some(remaining) = remaining else {
            self.here.collect(event, found);
            return;
        };
        self.rest.collect(event, found);
        let (segment, remaining) = match remaining.split_once('.') {
            Some((segment, remaining)) => (segment, Some(remaining)),
            None => (remaining, None),
        };
        if let Some(node) = self.segments.get(segment) {
            node.walk(remaining, event, found);
        }
        if let Some(node) = &self.star {
            node.walk(remaining, event, found);
        }
    }

    fn retain(&mut self, keep: &mut impl FnMut(&Entry) -> bool) {
        let buckets = self.exact.values_mut().chain([&mut self.here, &mut self.rest]);
        buckets.for_each(|bucket| bucket.retain(keep));
        self.exact.retain(|_, bucket| !bucket.is_empty());
        let nodes = self.segments.values_mut().chain(self.star.as_deref_mut());
        nodes.for_each(|node| node.retain(keep));
    }
}

impl Bucket {
    /// A filter that selects is found by its attribute with the fewest values.
    fn insert(&mut self, filter: &Filter, entry: &Entry) {
        match filter.attributes.iter().min_by_key(|(_, values)| values.len()) {
            None => self.any.push(entry.clone()),
            Some((name, values)) => {
                let by_value = self.by.entry(name.clone()).or_default();
                for value in values {
                    by_value.entry(value.clone()).or_default().push(entry.clone());
                }
            }
        }
    }

    fn collect(&self, event: &Event, found: &mut Vec<Arc<Subscription>>) {
        let selected =
            self.by.iter().filter_map(|(name, by_value)| by_value.get(attribute(event, name)?));
        for entry in self.any.iter().chain(selected.flatten()) {
            let it = &entry.version;
            let holds = it.subscription.revision <= event.revision
                && event.revision < it.ended.load(Ordering::Relaxed);
            if holds && fits(&it.subscription.filters[entry.filter], event) {
                found.push(Arc::clone(&it.subscription));
            }
        }
    }

    fn retain(&mut self, keep: &mut impl FnMut(&Entry) -> bool) {
        self.any.retain(&mut *keep);
        for by_value in self.by.values_mut() {
            by_value.values_mut().for_each(|entries| entries.retain(&mut *keep));
            by_value.retain(|_, entries| !entries.is_empty());
        }
        self.by.retain(|_, by_value| !by_value.is_empty());
    }

    fn is_empty(&self) -> bool {
        self.any.is_empty() && self.by.is_empty()
    }
}

fn fits(filter: &Filter, event: &Event) -> bool {
    filter.attributes.iter().all(|(name, values)| {
        attribute(event, name).is_some_and(|value| values.iter().any(|it| it == value))
    })
}

/// The format is an attribute of an event like others, though it is not delivered as one.
fn attribute<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    if name == "format" { Some(event.format) } else { event.content.attributes.get(name) }
}

#[cfg(test)]
mod tests {
    use hookyard_nouns::digest::Digest;
    use hookyard_nouns::event::{Attributes, Content};
    use hookyard_nouns::rendering::Rendering;
    use hookyard_nouns::subscription::Pace;
    use serde_json::{Value, json};

    use super::*;

    fn subscription(id: u128, revision: u64, state: State, filters: Value) -> Arc<Subscription> {
        let rendering = Rendering {
            format: "cloudevents".to_owned(),
            encoding: 1,
            locale: None,
            addressee: None,
            steps: vec![],
        };
        Arc::new(Subscription {
            id: Uuid::from_u128(id),
            tenant: Tenant::new("t").unwrap(),
            format: "cloudevents",
            provider_id: id.to_string(),
            name: String::new(),
            url: "https://example.com".parse().unwrap(),
            state,
            catch_up: false,
            filters: serde_json::from_value(filters).unwrap(),
            format_steps: vec![],
            steps: vec![],
            rendering_hash: Digest::of(b""),
            rendering: Arc::new(rendering),
            agreed_origin: None,
            rate_per_minute: None,
            pace: Pace::default(),
            secrets: vec![],
            document: Value::Null,
            created_at_ms: 0,
            updated_at_ms: 0,
            revision,
        })
    }

    fn index(all: &[(u128, Value)]) -> Index {
        let mut index = Index::default();
        for (id, filters) in all {
            index.put(subscription(*id, 1, State::Active, filters.clone()));
        }
        index
    }

    fn event(tenant: &str, revision: u64, event_type: &str, extensions: &[(&str, &str)]) -> Event {
        let least = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", event_type)];
        let pairs = least.iter().chain(extensions);
        let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Event {
            id: Uuid::from_u128(1),
            tenant: Tenant::new(tenant).unwrap(),
            format: "cloudevents",
            content: Arc::new(Content { attributes: Attributes::new(pairs).unwrap(), data: None }),
            alternate_ids: vec![],
            accepted_at_ms: 0,
            revision,
        }
    }

    fn check(index: &Index, event_type: &str, extensions: &[(&str, &str)], ids: &[u128]) {
        let found = index.matching(&event("t", 9, event_type, extensions));
        let found: Vec<u128> = found.iter().map(|it| it.id.as_u128()).collect();
        assert_eq!(found, ids, "{event_type} {extensions:?}");
    }

    #[test]
    fn patterns_match_segment_by_segment() {
        let index = index(&[
            (1, json!([{"type": "order.paid"}])),
            (2, json!([{"type": "order.*"}])),
            (3, json!([{"type": "*"}])),
            (4, json!([{"type": "*.paid"}])),
            (5, json!([{"type": "order.*.v1"}])),
            (6, json!([{"type": "*.line.*"}])),
        ]);
        check(&index, "order.paid", &[], &[1, 2, 3, 4]);
        check(&index, "order", &[], &[3]);
        check(&index, "order.line.v1", &[], &[2, 3, 5, 6]);
        check(&index, "order.line.v1.x", &[], &[2, 3, 6]);
        check(&index, "bill.paid", &[], &[3, 4]);
        check(&index, "bill.line", &[], &[3]);
    }

    #[test]
    fn attributes_select() {
        let index = index(&[
            (1, json!([{"type": "a", "attributes": {"region": ["eu", "us"]}}])),
            (2, json!([{"type": "a", "attributes": {"region": ["eu"], "tier": ["1"]}}])),
            (3, json!([{"type": "*", "attributes": {"subject": ["7"]}}])),
            (4, json!([{"type": "a", "attributes": {"format": ["cloudevents"]}}])),
            (5, json!([{"type": "a", "attributes": {"format": ["kajabi"]}}])),
        ]);
        check(&index, "a", &[], &[4]);
        check(&index, "a", &[("region", "us")], &[1, 4]);
        check(&index, "a", &[("region", "eu"), ("tier", "1")], &[1, 2, 4]);
        check(&index, "a", &[("region", "eu"), ("tier", "2")], &[1, 4]);
        check(&index, "b", &[("subject", "7")], &[3]);
    }

    #[test]
    fn a_subscription_is_found_once() {
        let index = index(&[(1, json!([{"type": "a"}, {"type": "*"}, {"type": "a"}]))]);
        check(&index, "a", &[], &[1]);
    }

    #[test]
    fn nothing_crosses_tenants() {
        let index = index(&[(1, json!([{"type": "*"}]))]);
        assert!(index.matching(&event("other", 9, "a", &[])).is_empty());
    }

    #[test]
    fn an_event_is_matched_at_its_own_revision() {
        let all = || json!([{"type": "*"}]);
        let mut index = Index::default();
        index.put(subscription(1, 2, State::Active, all()));
        index.put(subscription(1, 4, State::Paused, all()));
        index.put(subscription(1, 6, State::Active, all()));
        index.end(Uuid::from_u128(1), 8);
        let revisions: Vec<u64> =
            (0..10).filter(|it| !index.matching(&event("t", *it, "a", &[])).is_empty()).collect();
        assert_eq!(revisions, [2, 3, 6, 7]);
        assert!(index.current(Uuid::from_u128(1)).is_none());
    }

    #[test]
    fn states_that_nobody_needs_are_forgotten() {
        let mut index = Index::default();
        for revision in 1..3_000 {
            let filters = json!([{"type": "a.*", "attributes": {"x": [revision.to_string()]}}]);
            index.put(subscription(1, revision, State::Active, filters));
            index.prune(revision);
        }
        assert!(index.ended <= 1_024);
        let node = &index.tenants[&Tenant::new("t").unwrap()];
        assert!(node.segments["a"].rest.by["x"].len() <= 1_025);
        let now = event("t", 2_999, "a.b", &[("x", "2999")]);
        assert_eq!(index.matching(&now).len(), 1);
    }
}
