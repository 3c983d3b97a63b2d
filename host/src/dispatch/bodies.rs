//! How many bytes of bodies are held, by all and by each tenant. Deliveries of one event often share a body, which
//! is in memory once, and so counts once. Pure.

use std::collections::HashMap;

use hookyard_nouns::event::Tenant;
use hookyard_nouns::rendering::Body;

/// What a delivery takes beside its body, about.
const DELIVERY_BYTES: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Bodies {
    /// By whose it is and where in memory it lies: how many deliveries hold it, and how large it is.
    held: HashMap<(Tenant, usize), (usize, usize)>,
    all: usize,
    of: HashMap<Tenant, usize>,
}

impl Bodies {
    pub(super) fn bytes(&self) -> usize {
        self.all
    }

    pub(super) fn bytes_of(&self, tenant: &Tenant) -> usize {
        self.of.get(tenant).copied().unwrap_or(0)
    }

    /// How many bytes more would be held with another delivery of this body.
    pub(super) fn weight(&self, tenant: &Tenant, body: &Body) -> usize {
        let is_held = self.held.contains_key(&key(tenant, body));
        DELIVERY_BYTES + if is_held { 0 } else { body.bytes.len() }
    }

    /// A delivery holds a body from now on, which stays in memory for as long.
    pub(super) fn hold(&mut self, tenant: &Tenant, body: &Body) {
        let bytes = self.weight(tenant, body);
        self.held.entry(key(tenant, body)).or_insert((0, body.bytes.len())).0 += 1;
        self.all += bytes;
        *self.of.entry(tenant.clone()).or_default() += bytes;
    }

    /// It does so no more.
    pub(super) fn let_go(&mut self, tenant: &Tenant, body: &Body) {
        let key = key(tenant, body);
        let (count, size) = self.held.get_mut(&key).expect("a body that is let go was held");
        *count -= 1;
        let bytes = DELIVERY_BYTES + if *count == 0 { *size } else { 0 };
        if *count == 0 {
            self.held.remove(&key);
        }
        self.all -= bytes;
        let of_tenant = self.of.get_mut(tenant).expect("a body that is let go was held");
        *of_tenant -= bytes;
        if *of_tenant == 0 {
            self.of.remove(tenant);
        }
    }
}

fn key(tenant: &Tenant, body: &Body) -> (Tenant, usize) {
    (tenant.clone(), body.bytes.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_body_that_is_shared_counts_once() {
        let tenant = Tenant::new("a").unwrap();
        let body = |size: usize| Body { bytes: Bytes::from(vec![7; size]), content_type: "" };
        let (shared, other) = (body(1 << 20), body(10));
        let mut bodies = Bodies::default();
        for _ in 0..150 {
            bodies.hold(&tenant, &shared.clone());
        }
        bodies.hold(&tenant, &other);
        assert_eq!(bodies.bytes(), (1 << 20) + 10 + 151 * DELIVERY_BYTES);
        assert_eq!(bodies.weight(&tenant, &shared), DELIVERY_BYTES);
        for _ in 0..149 {
            bodies.let_go(&tenant, &shared);
        }
        assert_eq!(bodies.bytes_of(&tenant), (1 << 20) + 10 + 2 * DELIVERY_BYTES);
        bodies.let_go(&tenant, &shared);
        bodies.let_go(&tenant, &other);
        assert_eq!((bodies.bytes(), bodies.held.len(), bodies.of.len()), (0, 0, 0));
    }
}
