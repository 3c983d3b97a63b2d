//! What the writer knows by heart of what is committed, so that it need not ask.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use rusqlite::{Connection, params};

use super::rows::{json, tenant};
use crate::event::Tenant;

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
            revision: number("select value from meta where name = 'revision'")?.unwrap_or(0),
            next_seq: number(
                "select max(coalesce((select max(seq) from events), 0),
                            coalesce((select max(upto) from routed), 0)) + 1",
            )?
            .unwrap_or(1),
            ..Known::default()
        };
        let mut rows = connection.prepare("select distinct tenant from identities")?;
        let identified = rows.query_map((), |row| tenant(row, 0))?;
        known.identified = identified.collect::<rusqlite::Result<_>>()?;

        let mut tenants = connection.prepare(
            "select tenants.tenant, coalesce(upto, 0), coalesce(beyond, '[]')
             from tenants left join routed using (tenant)",
        )?;
        let tenants = tenants
            .query_map((), |row| Ok((tenant(row, 0)?, row.get(1)?, json(row, 2)?)))?
            .collect::<rusqlite::Result<Vec<(Tenant, u64, BTreeSet<u64>)>>>()?;
        let mut unrouted = connection
            .prepare("select seq from events where tenant = ? and seq > ? order by seq")?;
        for (tenant, upto, out_of_turn) in tenants {
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
            "insert into routed (tenant, upto, beyond) values (?, ?, ?)
             on conflict do update set upto = excluded.upto, beyond = excluded.beyond",
        )?;
        for tenant in self.touched.drain() {
            let routing = &self.unrouted[&tenant];
            let upto = routing.events.front().map_or(routing.last, |next| next - 1);
            let beyond = serde_json::to_string(&routing.out_of_turn).expect("numbers are JSON");
            save.execute(params![tenant.as_str(), upto, beyond])?;
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
