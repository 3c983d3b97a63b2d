//! What plugins write during runs.

use hookyard_nouns::event::Tenant;
use hookyard_nouns::plugin::{LogLevel, LogLine};
use rusqlite::types::Value;
use rusqlite::{Connection, Result, Row, params, params_from_iter};

use super::rows::{broken, digest, named, sound, tenant, uuid};
use crate::store::{LogEntry, LogQuery};

/// How many lines are kept, of all plugins together.
const LINES_MAX: u64 = 500_000;

pub(super) fn add(connection: &Connection, it: &LogEntry) -> Result<()> {
    let mut insert = connection.prepare_cached(
        "insert into plugin_log (tenant, digest, subscription, event, level, message, at_ms)
         values (?, ?, ?, ?, ?, ?, ?)",
    )?;
    insert
        .execute(params![
            it.tenant.as_str(),
            it.plugin.0,
            it.subscription.as_bytes(),
            it.event.as_bytes(),
            it.line.level.as_str(),
            it.line.message,
            it.at_ms,
        ])
        .map(|_| ())
}

pub(super) fn search(
    connection: &Connection,
    owner: &Tenant,
    query: &LogQuery,
) -> Result<Vec<(u64, LogEntry)>> {
    let mut sql = "select seq, tenant, digest, subscription, event, level, message, at_ms
                   from plugin_log where tenant = ?"
        .to_owned();
    let mut values = vec![Value::from(owner.as_str().to_owned())];
    if !query.plugins.is_empty() {
        let places = vec!["?"; query.plugins.len()].join(", ");
        sql.push_str(&format!(" and digest in ({places})"));
        values.extend(query.plugins.iter().map(|it| Value::from(it.0.to_vec())));
    }
    for (column, id) in [("event", query.event), ("subscription", query.subscription)] {
        if let Some(id) = id {
            sql.push_str(&format!(" and {column} = ?"));
            values.push(id.as_bytes().to_vec().into());
        }
    }
    if let Some(level) = query.level {
        let levels = LogLevel::ALL.into_iter().filter(|it| *it >= level);
        let names: Vec<_> = levels.map(|it| format!("'{}'", it.as_str())).collect();
        sql.push_str(&format!(" and level in ({})", names.join(", ")));
    }
    let number = |it: u64| Value::Integer(i64::try_from(it).unwrap_or(i64::MAX));
    if let Some(before) = query.before {
        sql.push_str(" and seq < ?");
        values.push(number(before));
    }
    match query.after {
        Some(after) => {
            sql.push_str(" and seq > ? order by seq limit ?");
            values.push(number(after));
        }
        None => sql.push_str(" order by seq desc limit ?"),
    }
    values.push(Value::Integer(i64::try_from(query.limit).unwrap_or(i64::MAX)));
    let mut find = connection.prepare_cached(&sql)?;
    let read = |row: &Row<'_>| {
        let level: String = row.get(5)?;
        let entry = LogEntry {
            tenant: tenant(row, 1)?,
            plugin: digest(row, 2)?,
            subscription: uuid(row, 3)?,
            event: uuid(row, 4)?,
            at_ms: row.get(7)?,
            line: LogLine {
                level: LogLevel::parse(&level).ok_or_else(|| broken(5, level))?,
                message: row.get(6)?,
            },
        };
        Ok((row.get(0)?, entry))
    };
    let found =
        find.query_map(params_from_iter(values), |row| named("plugin_log", row, 0, read))?;
    sound(found).collect()
}

/// Forgets lines that are older, or more, than are kept. Answers whether there are more of them.
pub(super) fn forget(connection: &Connection, before_ms: i64, limit: usize) -> Result<bool> {
    let mut forget = connection.prepare_cached(
        "delete from plugin_log where seq in
             (select seq from (select seq, at_ms from plugin_log order by seq limit ?3)
              where at_ms < ?1 or seq <= (select max(seq) from plugin_log) - ?2)",
    )?;
    Ok(forget.execute(params![before_ms, LINES_MAX, limit])? == limit)
}
