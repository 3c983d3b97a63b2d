//! The delivery log, as it is searched. Every search goes along an index, newest first (replays go the other
//! way), and looks at so many rows only: what it has to say where little fits is where to go on.

use std::cmp::Ordering;

use hookyard_nouns::delivery::{Delivery, DeliveryState};
use hookyard_nouns::event::Tenant;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Result, Row, params_from_iter};
use uuid::Uuid;

use super::log::{DELIVERY, DELIVERY_COLUMNS, read};
use super::paths::{Along, Path, blob, path};
use super::rows::{named, sound};
use super::subscriptions;
use crate::store::{DeliveryQuery, Page, Place};

/// How many deliveries, or events, a search looks at.
const DELIVERIES_MAX: i64 = 2_000;
const EVENTS_MAX: i64 = 1_000;
/// How many of them are counted at a time.
const COUNTED_MAX: i64 = 20_000;
/// How large the answers of endpoints on a page may be together. It has one delivery at least.
const PAGE_BYTES_MAX: usize = 2 << 20;
/// At how many endpoints a search looks, of those that begin alike.
const ENDPOINTS_MAX: usize = 100;

/// Which way a search goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    NewestFirst,
    OldestFirst,
}

impl Order {
    fn compare(self, one: &Placed, other: &Placed) -> Ordering {
        match self {
            Order::NewestFirst => other.cmp(one),
            Order::OldestFirst => one.cmp(other),
        }
    }
}

pub(super) fn deliveries(
    connection: &Connection,
    tenant: &Tenant,
    query: &DeliveryQuery,
) -> Result<Page> {
    let (found, next) = walk(connection, tenant, query, Order::NewestFirst)?;
    Ok(Page { deliveries: found.into_iter().map(|(_, it)| it).collect(), next })
}

type Walked = (Vec<(Place, Delivery)>, Option<Place>);

/// Deliveries with their places, and where to go on.
pub(super) fn walk(
    connection: &Connection,
    tenant: &Tenant,
    query: &DeliveryQuery,
    order: Order,
) -> Result<Walked> {
    let mut found = Vec::new();
    let mut stops = Vec::new();
    for part in parts(connection, tenant, query)? {
        let (some, stop) = Search::new(tenant, &part, order).run(connection)?;
        found.extend(some);
        stops.extend(stop);
    }
    found.sort_by(|(one, _), (other, _)| order.compare(one, other));
    // Behind the place where the first of them stopped, another may have more.
    let stop = stops.into_iter().min_by(|one, other| order.compare(one, other));
    found.retain(|(place, _)| stop.is_none_or(|stop| order.compare(place, &stop).is_le()));
    let is_cut = found.len() > query.limit;
    found.truncate(query.limit);
    let last = found.last().map(|(place, _)| *place);
    let next = if is_cut { last } else { stop };
    let found = found.into_iter().map(|(placed, it)| (placed.place, it)).collect();
    Ok((found, next.map(|it| it.place)))
}

/// How many deliveries a search finds in its next part, and where to go on.
pub(super) fn count(
    connection: &Connection,
    tenant: &Tenant,
    part: &DeliveryQuery,
) -> Result<(u64, Option<Place>)> {
    Search::new(tenant, part, Order::NewestFirst).count(connection)
}

/// What is searched for along one index each.
pub(super) fn parts(
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
    order: Order,
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
    fn new(tenant: &Tenant, query: &'a DeliveryQuery, order: Order) -> Search<'a> {
        let mut it = Search {
            query,
            order,
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
            let condition =
                "iif(json_valid(deliveries.reason), deliveries.reason ->> 'code', null) = ?
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
        let behind = match self.order {
            Order::NewestFirst => "<=",
            Order::OldestFirst => ">=",
        };
        bound(behind, query.after.map(|it| it.created_at_ms));
    }

    fn narrow(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.rest.push_str(" and ");
        self.rest.push_str(condition);
        self.rest_values.extend(values);
    }

    /// The columns that a search goes along, its direction in SQL, and the sign of what comes after a place.
    fn way(&self) -> (&'static str, &'static str, &'static str, &'static str) {
        let (time, seq) = match self.along {
            Along::Deliveries => ("deliveries.created_at_ms", "deliveries.seq"),
            Along::Events => ("e.accepted_at_ms", "e.seq"),
        };
        match self.order {
            Order::NewestFirst => (time, seq, "desc", "<"),
            Order::OldestFirst => (time, seq, "asc", ">"),
        }
    }

    /// Leaves out what comes up to the place where the page before ended.
    fn go_on(&mut self) {
        let Some(after) = self.query.after else { return };
        let (time, seq, _, sign) = self.way();
        let (at, or_equal) = match self.along {
            Along::Deliveries => (after.seq, ""),
            // Of the event where the page before ended there may be more.
            Along::Events => (after.event_seq, "="),
        };
        self.condition.push_str(&format!(" and ({time}, {seq}) {sign}{or_equal} (?, ?)"));
        self.index_values.extend([after.created_at_ms.into(), number(at)]);
        if self.along == Along::Events {
            let rest = format!("(deliveries.event_seq <> ? or deliveries.seq {sign} ?)");
            self.narrow(&rest, [number(after.event_seq), number(after.seq)]);
        }
    }

    /// Looks at no more than so many rows of the index. Answers where that ends.
    fn stop(&mut self, connection: &Connection, looked_at: i64) -> Result<Option<Placed>> {
        let (time, seq, direction, _) = self.way();
        // All of an event's deliveries come before what is behind it.
        let place = match (self.along, self.order) {
            (Along::Deliveries, _) => "created_at_ms, event_seq, seq",
            (Along::Events, Order::NewestFirst) => "accepted_at_ms, seq, 0",
            (Along::Events, Order::OldestFirst) => "accepted_at_ms, seq, 9223372036854775807",
        };
        let (table, condition) = (self.table, &self.condition);
        let stop = connection
            .prepare_cached(&format!(
                "select {place} from {table} where {condition}
                 order by {time} {direction}, {seq} {direction} limit 1 offset {}",
                looked_at - 1
            ))?
            .query_row(params_from_iter(&self.index_values), |row| self.along.placed(row, 0))
            .optional()?;
        if let Some(stop) = stop {
            let up_to = match self.order {
                Order::NewestFirst => ">=",
                Order::OldestFirst => "<=",
            };
            self.condition.push_str(&format!(" and ({time}, {seq}) {up_to} (?, ?)"));
            let Place { created_at_ms, event_seq, seq } = stop.place;
            let at = if self.along == Along::Events { event_seq } else { seq };
            self.index_values.extend([created_at_ms.into(), number(at)]);
        }
        Ok(stop)
    }

    /// What is found, and where to go on.
    fn run(mut self, connection: &Connection) -> Result<Found> {
        self.go_on();
        let looked_at = match self.along {
            Along::Deliveries => DELIVERIES_MAX,
            Along::Events => EVENTS_MAX,
        };
        let stop = self.stop(connection, looked_at)?;
        let (time, seq, direction, _) = self.way();
        let also = match self.along {
            Along::Deliveries => String::new(),
            Along::Events => format!(", deliveries.seq {direction}"),
        };
        let from = self.from();
        let sql = format!(
            "select {DELIVERY}, deliveries.created_at_ms, deliveries.event_seq, deliveries.seq {from}
             order by {time} {direction}, {seq} {direction}{also} limit ?"
        );
        let limit = number(u64::try_from(self.query.limit).unwrap_or(u64::MAX));
        let values = self.index_values.into_iter().chain(self.rest_values).chain([limit]);
        let mut find = connection.prepare_cached(&sql)?;
        let mut rows = find.query(params_from_iter(values))?;
        let (mut found, mut last, mut count, mut bytes) = (Vec::new(), None, 0, 0);
        while bytes < PAGE_BYTES_MAX
            && let Some(row) = rows.next()?
        {
            let place = self.along.placed(row, DELIVERY_COLUMNS)?;
            let read = std::iter::once(named("deliveries", row, 0, read));
            if let Some(it) = sound(read).next().transpose()? {
                bytes += it.last_attempt.as_ref().map_or(0, |it| it.answer.len());
                found.push((place, it));
            }
            (last, count) = (Some(place), count + 1);
        }
        let is_full = count == self.query.limit || bytes >= PAGE_BYTES_MAX;
        Ok((found, if is_full { last } else { stop }))
    }

    fn count(mut self, connection: &Connection) -> Result<(u64, Option<Place>)> {
        self.go_on();
        let stop = self.stop(connection, COUNTED_MAX)?;
        let sql = format!("select count(*) {}", self.from());
        let values = self.index_values.into_iter().chain(self.rest_values);
        let count = connection
            .prepare_cached(&sql)?
            .query_row(params_from_iter(values), |row| row.get(0))?;
        Ok((count, stop.map(|it| it.place)))
    }

    /// What is searched, in SQL.
    fn from(&self) -> String {
        let join = match self.along {
            Along::Deliveries => "",
            Along::Events => {
                "cross join deliveries indexed by deliveries_by_event
                 on deliveries.event_seq = e.seq"
            }
        };
        format!("from {} {join} where {}{}", self.table, self.condition, self.rest)
    }
}

fn number(it: u64) -> Value {
    Value::Integer(i64::try_from(it).unwrap_or(i64::MAX))
}
