//! What the writer knows by heart of what is committed, so that it need not ask.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use hookyard_nouns::event::Tenant;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{
    check_sum, is_broken, json, named, sound, sum, tenant, text, to_json, values, why,
};

#[derive(Default)]
pub(super) struct Known {
    /// Of subscriptions, pipelines and current plugin versions.
    pub(super) revision: u64,
    /// The number that the next event gets.
    pub(super) next_seq: u64,
    unrouted: HashMap<Tenant, Routing>,
    /// Whose routing changed in this transaction.
    touched: HashSet<Tenant>,
    /// Tenants with any alternate ids; the others need no look-up.
    pub(super) identified: HashSet<Tenant>,
}

/// A tenant's events that are not routed.
#[derive(Default)]
struct Routing {
    /// In order, those included that are routed out of turn.
    events: VecDeque<u64>,
    out_of_turn: BTreeSet<u64>,
    /// The tenant's last event.
    last: u64,
}

impl Known {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Known> {
        let number = |sql: &str| connection.query_one(sql, (), |row| row.get::<_, Option<u64>>(0));
        let mut known = Known {
            revision: revision(connection)?,
            next_seq: number(
                "select max(coalesce((select max(seq) from events), 0),
                            coalesce((select max(upto) from routed), 0)) + 1",
            )?
            .unwrap_or(1),
            ..Known::default()
        };
        let mut rows = connection.prepare("select distinct tenant from identities")?;
        let identified =
            rows.query_map((), |row| named("identities", row, 0, |row| tenant(row, 0)))?;
        known.identified = sound(identified).collect::<rusqlite::Result<_>>()?;

        let mut tenants = connection.prepare("select tenant from tenants")?;
        let tenants =
            tenants.query_map((), |row| named("tenants", row, 0, |row| tenant(row, 0)))?;
        let tenants = sound(tenants).collect::<rusqlite::Result<Vec<Tenant>>>()?;
        let mut unrouted = connection
            .prepare("select seq from events where tenant = ? and seq > ? order by seq")?;
        for tenant in tenants {
            let (upto, out_of_turn) = routed(connection, &tenant)?;
            let events: VecDeque<u64> = unrouted
                .query_map(params![tenant.as_str(), upto], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let last = events.back().copied().unwrap_or(upto);
            known.unrouted.insert(tenant, Routing { events, out_of_turn, last });
        }
        Ok(known)
    }

    /// The number of a new event.
    pub(super) fn begin(&mut self, tenant: &Tenant) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        let routing = self.unrouted.entry(tenant.clone()).or_default();
        routing.events.push_back(seq);
        routing.last = seq;
        seq
    }

    /// All deliveries of an event are recorded.
    pub(super) fn routed(&mut self, tenant: &Tenant, seq: u64) {
        let Some(routing) = self.unrouted.get_mut(tenant) else { return };
        if routing.events.binary_search(&seq).is_err() {
            return;
        }
        routing.out_of_turn.insert(seq);
        while let Some(next) = routing.events.front()
            && routing.out_of_turn.remove(next)
        {
            routing.events.pop_front();
        }
        if !self.touched.contains(tenant) {
            self.touched.insert(tenant.clone());
        }
    }

    /// Writes how far routing has come, one row for each tenant that came further.
    pub(super) fn save_routed(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut save = connection.prepare_cached(
            "insert into routed (tenant, upto, beyond, sum) values (?, ?, ?, ?)
             on conflict do update set
                 upto = excluded.upto, beyond = excluded.beyond, sum = excluded.sum",
        )?;
        for tenant in self.touched.drain() {
            let routing = &self.unrouted[&tenant];
            let upto = routing.events.front().map_or(routing.last, |next| next - 1);
            let upto = i64::try_from(upto).unwrap_or(i64::MAX);
            let beyond = to_json(&routing.out_of_turn);
            let sum = sum([text(tenant.as_str()), ValueRef::Integer(upto), text(&*beyond)]);
            save.execute(params![tenant.as_str(), upto, beyond, sum])?;
        }
        Ok(())
    }

    /// Tenants with events that are not routed, each with the number before the first of them.
    pub(super) fn unrouted_tenants(&self) -> Vec<(Tenant, u64)> {
        let first = |(tenant, routing): (&Tenant, &Routing)| {
            routing.events.front().map(|first| (tenant.clone(), first - 1))
        };
        self.unrouted.iter().filter_map(first).collect()
    }

    /// Every event up to this number is routed, whosoever's it is.
    pub(super) fn routed_upto(&self) -> u64 {
        let first = self.unrouted.values().filter_map(|routing| routing.events.front()).min();
        first.map_or(self.next_seq, |first| *first) - 1
    }

    /// Every event of the tenant up to this number is routed.
    pub(super) fn routed_upto_of(&self, tenant: &Tenant) -> u64 {
        let first = self.unrouted.get(tenant).and_then(|routing| routing.events.front());
        first.map_or(self.next_seq, |first| *first) - 1
    }

    /// How many events of each tenant are not routed.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&Tenant, usize)> {
        self.unrouted.iter().map(|(tenant, routing)| (tenant, routing.events.len()))
    }

    /// The tenant's next events that are not routed, after a number.
    pub(super) fn unrouted(&self, tenant: &Tenant, after: u64, limit: usize) -> Vec<u64> {
        let Some(routing) = self.unrouted.get(tenant) else { return Vec::new() };
        let from = routing.events.partition_point(|seq| *seq <= after);
        let rest = routing.events.range(from..).filter(|seq| !routing.out_of_turn.contains(*seq));
        rest.take(limit).copied().collect()
    }
}

/// The newest revision. It is at least what any row says of it: a number that has lost a bit is not to send events
/// back to subscriptions of long ago.
pub(super) fn revision(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(
            "select max(coalesce((select value from meta where name = 'revision'), 0),
                        coalesce((select max(revision) from subscriptions), 0),
                        coalesce((select max(ended) from subscriptions where ended is not null), 0),
                        coalesce((select revision from events order by seq desc limit 1), 0))",
        )?
        .query_row((), |row| row.get(0))
}

/// How far a tenant's events are routed: up to which number, and which ones beyond it. Where that is broken, all
/// that are kept are routed again: what was routed before is known by its deliveries.
fn routed(connection: &Connection, tenant: &Tenant) -> rusqlite::Result<(u64, BTreeSet<u64>)> {
    let found = connection
        .prepare_cached(&format!("{ROUTED} where tenant = ?"))?
        .query_row(params![tenant.as_str()], read_routed);
    match found.optional() {
        Err(err) if is_broken(&err) => {
            let why = why(&err);
            tracing::error!(%tenant, why, "how far events are routed is broken; looking at all of them again");
            Ok((0, BTreeSet::new()))
        }
        found => Ok(found?.unwrap_or_default()),
    }
}

/// How all are found that are read by [`read_routed`].
pub(super) const ROUTED: &str = "select tenant, upto, beyond, sum from routed";

pub(super) fn read_routed(row: &Row<'_>) -> rusqlite::Result<(u64, BTreeSet<u64>)> {
    check_sum(row, 3, sum(values(row, [0, 1, 2])?))?;
    Ok((row.get(1)?, json(row, 2)?))
}
