//! The delivery log, as it is searched. Every search goes along an index, newest first, and looks at so many
//! rows only: what it has to say where little fits is where to go on.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Result, Row, params, params_from_iter};
use uuid::Uuid;

use super::log::{DELIVERY, DELIVERY_COLUMNS, read};
use super::paths::{Along, Path, blob, path};
use super::rows::{digest, digest_or_null, json, json_or_null};
use super::subscriptions;
use crate::delivery::{Attempt, Delivery, DeliveryState};
use crate::event::Tenant;
use crate::store::{DeliveryQuery, Page, Place};

/// How many deliveries, or events, a search looks at.
const DELIVERIES_MAX: i64 = 2_000;
const EVENTS_MAX: i64 = 1_000;
/// At how many endpoints a search looks, of those that begin alike.
const ENDPOINTS_MAX: usize = 100;

pub(super) fn deliveries(
    connection: &Connection,
    tenant: &Tenant,
    query: &DeliveryQuery,
) -> Result<Page> {
    let mut found = Vec::new();
    let mut stops = Vec::new();
    for part in parts(connection, tenant, query)? {
        let (some, stop) = Search::new(tenant, &part).run(connection)?;
        found.extend(some);
        stops.extend(stop);
    }
    found.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
    // Behind the place where the first of them stopped, another may have more.
    let stop = stops.into_iter().max();
    found.retain(|(place, _)| stop.is_none_or(|stop| *place >= stop));
    let is_cut = found.len() > query.limit;
    found.truncate(query.limit);
    let last = found.last().map(|(place, _)| *place);
    let next = if is_cut { last } else { stop };
    Ok(Page {
        deliveries: found.into_iter().map(|(_, it)| it).collect(),
        next: next.map(|it| it.place),
    })
}

/// What is searched for along one index each.
fn parts(
    connection: &Connection,
    tenant: &Tenant,
    query: &DeliveryQuery,
) -> Result<Vec<DeliveryQuery>> {
    let at_endpoint = match &query.endpoint {
        Some(beginning) => {
            let found = subscriptions::by_url(connection, tenant, beginning, ENDPOINTS_MAX)?;
            let named = query.subscriptions.as_ref();
            let both = found.into_iter().filter(|it| named.is_none_or(|them| them.contains(it)));
            Some(both.collect())
        }
        None => query.subscriptions.clone(),
    };
    let subscriptions = match at_endpoint {
        Some(some) => some.into_iter().map(|it: Uuid| Some(vec![it])).collect(),
        None => vec![None],
    };
    let is_rare = |it: &DeliveryState| *it != DeliveryState::Delivered;
    let states = if query.states.iter().all(is_rare) && !query.states.is_empty() {
        query.states.iter().map(|it| vec![*it]).collect()
    } else {
        vec![query.states.clone()]
    };
    let mut parts = Vec::new();
    for subscriptions in subscriptions {
        for states in &states {
            let (subscriptions, states) = (subscriptions.clone(), states.clone());
            parts.push(DeliveryQuery { subscriptions, states, ..query.clone() });
        }
    }
    Ok(parts)
}

/// A place, in the order of the search.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    created_at_ms: i64,
    /// The event's number, where it is gone along events.
    event_seq: u64,
    seq: u64,
    place: Place,
}

/// A search along one index.
struct Search<'a> {
    query: &'a DeliveryQuery,
    along: Along,
    /// The table with the index, and the part that the index knows.
    table: &'static str,
    condition: String,
    index_values: Vec<Value>,
    /// What narrows it further.
    rest: String,
    rest_values: Vec<Value>,
}

/// What a search has found, and where it has stopped before the end.
type Found = (Vec<(Placed, Delivery)>, Option<Placed>);

impl Along {
    fn placed(self, row: &Row<'_>, first: usize) -> Result<Placed> {
        let place = Place {
            created_at_ms: row.get(first)?,
            event_seq: row.get(first + 1)?,
            seq: row.get(first + 2)?,
        };
        let Place { created_at_ms, event_seq, seq } = place;
        let event_seq = if self == Along::Events { event_seq } else { 0 };
        Ok(Placed { created_at_ms, event_seq, seq, place })
    }
}

impl<'a> Search<'a> {
    fn new(tenant: &Tenant, query: &'a DeliveryQuery) -> Search<'a> {
        let mut it = Search {
            query,
            along: Along::Deliveries,
            table: "deliveries",
            condition: String::new(),
            index_values: Vec::new(),
            rest: String::new(),
            rest_values: Vec::new(),
        };
        let owner = Value::from(tenant.as_str().to_owned());
        it.choose_index(owner.clone());
        it.narrow("deliveries.tenant = ?", [owner]);
        if let Some([one]) = query.subscriptions.as_deref() {
            it.narrow("deliveries.subscription = ?", [blob(*one)]);
        }
        if let Some(status) = query.status {
            it.narrow("deliveries.attempt_status = ?", [i64::from(status).into()]);
        }
        if let Some(reason) = &query.reason {
            let condition = "deliveries.reason ->> 'code' = ?
                             and deliveries.state in ('held', 'filtered', 'failed', 'dead')";
            it.narrow(condition, [reason.clone().into()]);
        }
        if !query.states.is_empty() {
            let places = vec!["?"; query.states.len()].join(", ");
            let states = query.states.iter().map(|it| Value::from(it.as_str().to_owned()));
            it.narrow(&format!("deliveries.state in ({places})"), states);
        }
        let of_event = |it: &mut Search<'_>, condition: &str, value: &Option<String>| {
            if let Some(value) = value {
                let condition = format!(
                    "exists (select 1 from events e where e.seq = deliveries.event_seq and {condition})"
                );
                it.narrow(&condition, [value.clone().into()]);
            }
        };
        of_event(&mut it, "e.type = ?", &query.event_type);
        of_event(&mut it, "e.subject = ?", &query.subject);
        it
    }

    fn choose_index(&mut self, owner: Value) {
        let query = self.query;
        let Path(along, table, condition, values) = path(query, owner);
        self.along = along;
        self.table = table;
        self.condition = condition.to_owned();
        self.index_values = values;
        let time = match self.along {
            Along::Deliveries => "deliveries.created_at_ms",
            Along::Events => "e.accepted_at_ms",
        };
        let mut bound = |condition: &str, value: Option<i64>| {
            if let Some(value) = value {
                self.condition.push_str(&format!(" and {time} {condition} ?"));
                self.index_values.push(value.into());
            }
        };
        bound(">=", query.from_ms);
        bound("<", query.to_ms);
        bound("<=", query.after.map(|it| it.created_at_ms));
    }

    fn narrow(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.rest.push_str(" and ");
        self.rest.push_str(condition);
        self.rest_values.extend(values);
    }

    /// What is found, and where to go on.
    fn run(mut self, connection: &Connection) -> Result<Found> {
        let number = |it: u64| Value::Integer(i64::try_from(it).unwrap_or(i64::MAX));
        let (time, seq, place, looked_at, join, order) = match self.along {
            Along::Deliveries => (
                "deliveries.created_at_ms",
                "deliveries.seq",
                "deliveries.created_at_ms, deliveries.event_seq, deliveries.seq",
                DELIVERIES_MAX,
                "",
                "deliveries.created_at_ms desc, deliveries.seq desc",
            ),
            Along::Events => (
                "e.accepted_at_ms",
                "e.seq",
                "e.accepted_at_ms, e.seq, 0",
                EVENTS_MAX,
                "cross join deliveries indexed by deliveries_by_event
                 on deliveries.event_seq = e.seq",
                "e.accepted_at_ms desc, e.seq desc, deliveries.seq desc",
            ),
        };
        if let Some(after) = self.query.after {
            // Of the event where the page before ended there may be more.
            let (sign, at) = match self.along {
                Along::Deliveries => ("<", after.seq),
                Along::Events => ("<=", after.event_seq),
            };
            self.condition.push_str(&format!(" and ({time}, {seq}) {sign} (?, ?)"));
            self.index_values.extend([after.created_at_ms.into(), number(at)]);
            if self.along == Along::Events {
                let rest = "(deliveries.event_seq <> ? or deliveries.seq < ?)";
                self.narrow(rest, [number(after.event_seq), number(after.seq)]);
            }
        }
        let (table, condition) = (self.table, &self.condition);
        let stop = connection
            .prepare_cached(&format!(
                "select {place} from {table} where {condition}
                 order by {time} desc, {seq} desc limit 1 offset {}",
                looked_at - 1
            ))?
            .query_row(params_from_iter(&self.index_values), |row| self.along.placed(row, 0))
            .optional()?;
        let mut sql = format!(
            "select {DELIVERY}, deliveries.created_at_ms, deliveries.event_seq, deliveries.seq
             from {table} {join} where {condition}"
        );
        let mut values = self.index_values;
        if let Some(stop) = stop {
            sql.push_str(&format!(" and ({time}, {seq}) >= (?, ?)"));
            let Place { created_at_ms, event_seq, seq } = stop.place;
            let at = if self.along == Along::Events { event_seq } else { seq };
            values.extend([created_at_ms.into(), number(at)]);
        }
        sql.push_str(&format!("{} order by {order} limit ?", self.rest));
        values.extend(self.rest_values);
        values.push(number(u64::try_from(self.query.limit).unwrap_or(u64::MAX)));
        let mut find = connection.prepare_cached(&sql)?;
        let found = find.query_map(params_from_iter(values), |row| {
            Ok((self.along.placed(row, DELIVERY_COLUMNS)?, read(row)?))
        })?;
        let found: Vec<(Placed, Delivery)> = found.collect::<Result<_>>()?;
        let is_full = found.len() == self.query.limit;
        let next = if is_full { found.last().map(|(place, _)| *place) } else { stop };
        Ok((found, next))
    }
}

pub(super) fn delivery(
    connection: &Connection,
    tenant: &Tenant,
    id: Uuid,
) -> Result<Option<(Delivery, Vec<Attempt>)>> {
    let sql = format!("select {DELIVERY} from deliveries where id = ? and tenant = ?");
    let delivery =
        connection.query_row(&sql, params![id.as_bytes(), tenant.as_str()], read).optional()?;
    let Some(delivery) = delivery else { return Ok(None) };
    let mut earlier = connection.prepare_cached(
        "select number, at_ms, duration_ms, status, answer, error, body, rendering, detail
         from attempts where delivery = ? order by number",
    )?;
    let attempts = earlier.query_map(params![id.as_bytes()], |row| {
        let unknown = row.get_ref(7)?.as_bytes_or_null()?.is_none();
        Ok(Attempt {
            number: row.get(0)?,
            at_ms: row.get(1)?,
            duration_ms: row.get(2)?,
            status: row.get(3)?,
            answer: row.get(4)?,
            error: json_or_null(row, 5)?,
            body: digest_or_null(row, 6)?,
            rendering: if unknown { delivery.rendering } else { digest(row, 7)? },
            detail: json(row, 8)?,
        })
    })?;
    let mut attempts: Vec<Attempt> = attempts.collect::<Result<_>>()?;
    attempts.extend(delivery.last_attempt.clone());
    Ok(Some((delivery, attempts)))
}

/// Forgets deliveries that are settled and whose events are routed: others would come again.
pub(super) fn purge(
    connection: &Connection,
    tenant: &Tenant,
    ids: &[Uuid],
    routed: u64,
) -> Result<u64> {
    let mut purged = 0;
    for id in ids {
        let gone = connection
            .prepare_cached(
                "delete from deliveries where id = ? and tenant = ? and event_seq <= ?
                 and state not in ('pending', 'retrying', 'held')",
            )?
            .execute(params![id.as_bytes(), tenant.as_str(), routed])?;
        if gone > 0 {
            connection
                .prepare_cached("delete from attempts where delivery = ?")?
                .execute(params![id.as_bytes()])?;
            purged += 1;
        }
    }
    Ok(purged)
}
