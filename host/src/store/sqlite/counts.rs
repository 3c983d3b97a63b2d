//! What happened, counted minute by minute. A transaction's counts are written at its end: one row for
//! each subscription, and one for its tenant, which stands under the nil id.

use std::collections::HashMap;

use hookyard_nouns::delivery::{Delivery, DeliveryState};
use hookyard_nouns::event::Tenant;
use rusqlite::{Connection, Result, params};
use uuid::Uuid;

use crate::store::{Counts, CountsQuery};

const MINUTE_MS: i64 = 60_000;

/// What is counted in one transaction, by tenant, subscription and minute.
#[derive(Default)]
pub(super) struct Counting(HashMap<(Tenant, Uuid, i64), Counts>);

impl Counting {
    pub(super) fn event(&mut self, tenant: &Tenant, at_ms: i64, duplicate: bool) {
        let counts = self.of(tenant, Uuid::nil(), at_ms);
        counts.events += u64::from(!duplicate);
        counts.duplicates += u64::from(duplicate);
    }

    pub(super) fn filtered(&mut self, tenant: &Tenant, subscription: Uuid, at_ms: i64) {
        self.of(tenant, subscription, at_ms).filtered += 1;
    }

    /// A delivery as it has been recorded. `attempted`: with an attempt that was not known before.
    pub(super) fn delivery(&mut self, tenant: &Tenant, it: &Delivery, attempted: bool) {
        let attempt = it.last_attempt.as_ref().filter(|_| attempted);
        let at_ms = attempt
            .map_or(it.created_at_ms, |attempt| attempt.at_ms + i64::from(attempt.duration_ms));
        let counts = self.of(tenant, it.subscription_id, at_ms);
        if let Some(attempt) = attempt {
            let duration_ms = u64::from(attempt.duration_ms);
            counts.attempts += 1;
            counts.attempts_failed += u64::from(attempt.error.is_some());
            counts.duration_ms += duration_ms;
            counts.duration_max_ms = counts.duration_max_ms.max(duration_ms);
        }
        match it.state {
            DeliveryState::Delivered => counts.delivered += 1,
            DeliveryState::Dead => counts.dead += 1,
            DeliveryState::Failed => counts.failed += 1,
            // Filtered ones are counted where they are not recorded, too.
            DeliveryState::Pending
            | DeliveryState::Retrying
            | DeliveryState::Held
            | DeliveryState::Filtered
            | DeliveryState::Cancelled => {}
        }
    }

    fn of(&mut self, tenant: &Tenant, subscription: Uuid, at_ms: i64) -> &mut Counts {
        self.0.entry((tenant.clone(), subscription, at_ms / MINUTE_MS)).or_default()
    }

    pub(super) fn save(&mut self, connection: &Connection) -> Result<()> {
        let mut totals: HashMap<(Tenant, i64), Counts> = HashMap::new();
        for ((tenant, subscription, minute), it) in self.0.drain() {
            totals.entry((tenant.clone(), minute)).or_default().add(&it);
            if !subscription.is_nil() {
                save(connection, &tenant, subscription, minute, &it)?;
            }
        }
        totals.iter().try_for_each(|((tenant, minute), it)| {
            save(connection, tenant, Uuid::nil(), *minute, it)
        })
    }
}

fn save(
    connection: &Connection,
    tenant: &Tenant,
    subscription: Uuid,
    minute: i64,
    it: &Counts,
) -> Result<()> {
    let mut save = connection.prepare_cached(
        "insert into minutes (tenant, subscription, minute, events, duplicates, attempts,
                              attempts_failed, delivered, dead, failed, filtered, duration_ms,
                              duration_max_ms)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         on conflict do update set
             events = events + excluded.events, duplicates = duplicates + excluded.duplicates,
             attempts = attempts + excluded.attempts,
             attempts_failed = attempts_failed + excluded.attempts_failed,
             delivered = delivered + excluded.delivered, dead = dead + excluded.dead,
             failed = failed + excluded.failed, filtered = filtered + excluded.filtered,
             duration_ms = duration_ms + excluded.duration_ms,
             duration_max_ms = max(duration_max_ms, excluded.duration_max_ms)",
    )?;
    save.execute(params![
        tenant.as_str(),
        subscription.as_bytes(),
        minute,
        it.events,
        it.duplicates,
        it.attempts,
        it.attempts_failed,
        it.delivered,
        it.dead,
        it.failed,
        it.filtered,
        it.duration_ms,
        it.duration_max_ms,
    ])
    .map(|_| ())
}

/// Step by step, oldest first. Steps in which nothing happened are left out.
pub(super) fn read(
    connection: &Connection,
    owner: &Tenant,
    query: &CountsQuery,
) -> Result<Vec<(i64, Counts)>> {
    let mut find = connection.prepare_cached(
        "select minute / ?5 * ?5, sum(events), sum(duplicates), sum(attempts), sum(attempts_failed),
                sum(delivered), sum(dead), sum(failed), sum(filtered), sum(duration_ms),
                max(duration_max_ms)
         from minutes where tenant = ?1 and subscription = ?2 and minute >= ?3 and minute < ?4
         group by 1 order by 1",
    )?;
    let subscription = query.subscription.unwrap_or(Uuid::nil());
    let bounds = (query.from_ms / MINUTE_MS, query.to_ms / MINUTE_MS);
    let values =
        params![owner.as_str(), subscription.as_bytes(), bounds.0, bounds.1, query.step_minutes];
    let found = find.query_map(values, |row| {
        let at: i64 = row.get(0)?;
        let counts = Counts {
            events: row.get(1)?,
            duplicates: row.get(2)?,
            attempts: row.get(3)?,
            attempts_failed: row.get(4)?,
            delivered: row.get(5)?,
            dead: row.get(6)?,
            failed: row.get(7)?,
            filtered: row.get(8)?,
            duration_ms: row.get(9)?,
            duration_max_ms: row.get(10)?,
        };
        Ok((at * MINUTE_MS, counts))
    })?;
    found.collect()
}

/// Answers whether there is more to forget.
pub(super) fn forget(connection: &Connection, before_ms: i64, limit: usize) -> Result<bool> {
    let forgotten = connection
        .prepare_cached(
            "delete from minutes where (tenant, subscription, minute) in
                 (select tenant, subscription, minute from minutes indexed by minutes_by_time
                  where minute < ? limit ?)",
        )?
        .execute(params![before_ms / MINUTE_MS, limit])?;
    Ok(forgotten == limit)
}
