//! Opens the file and brings its tables up to date.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::secret::ServerKey;

const MIGRATIONS: [&str; 10] = [
    include_str!("migrations/0001_start.sql"),
    include_str!("migrations/0002_plugins.sql"),
    include_str!("migrations/0003_delivery.sql"),
    include_str!("migrations/0004_log.sql"),
    include_str!("migrations/0005_replays.sql"),
    include_str!("migrations/0006_window.sql"),
    include_str!("migrations/0007_published.sql"),
    include_str!("migrations/0008_sums.sql"),
    include_str!("migrations/0009_usage.sql"),
    include_str!("migrations/0010_origin.sql"),
];

pub(super) fn connect(path: &Path, flags: OpenFlags) -> anyhow::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|err| anyhow::anyhow!("cannot open `{}`: {err}", path.display()))?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // A statement is planned once, and not anew for other values that are bound to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    if !flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        // Settled before there is a table: pages that are freed can be given back later.
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        connection.pragma_update(None, "cache_size", -16_384)?;
    }
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

pub(super) fn migrate(connection: &mut Connection) -> anyhow::Result<()> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
    let version: usize = transaction.query_one("pragma user_version", (), |row| row.get(0))?;
    anyhow::ensure!(
        version <= MIGRATIONS.len(),
        "the store was written by a newer version of hookyard (its tables have number {version}, and \
         this program knows {})",
        MIGRATIONS.len()
    );
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", number + 1)?;
    }
    Ok(transaction.commit()?)
}

/// Makes sure that the store was written with this server key. With another one no secret could be opened, and all
/// subscriptions would be left out as broken.
pub(super) fn check_key(connection: &Connection, key: &ServerKey) -> anyhow::Result<()> {
    connection.execute(
        "insert into meta (name, value) select 'key', ?1 where not exists
             (select 1 from meta where name = 'key')",
        params![key.check()],
    )?;
    let check: i64 =
        connection.query_one("select value from meta where name = 'key'", (), |row| row.get(0))?;
    // A number that a disk has damaged is not to keep the router from its store.
    anyhow::ensure!(
        check == key.check() || opens_a_secret(connection, key)?,
        "the store was written with another server key: with this one, signing secrets cannot be opened; put \
         back the key file or the `HOOKYARD_KEY` that it was made with"
    );
    Ok(())
}

fn opens_a_secret(connection: &Connection, key: &ServerKey) -> rusqlite::Result<bool> {
    let first = connection
        .query_row("select subscription, sealed from secrets limit 1", (), |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    Ok(first.is_some_and(|(owner, sealed)| key.open_sealed(&owner, &sealed).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_opened_with_the_key_that_it_was_written_with() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        let key = |of: char| ServerKey::parse(&format!("{}=", of.to_string().repeat(43))).unwrap();
        let (own, other) = (key('A'), key('E'));
        for _ in 0..2 {
            check_key(&connection, &own).unwrap();
        }
        let refused = check_key(&connection, &other).unwrap_err().to_string();
        assert!(refused.contains("another server key"), "{refused}");
        connection.execute("update meta set value = value + 1 where name = 'key'", ()).unwrap();
        check_key(&connection, &own).unwrap_err();
        let sealed = own.seal(b"owner", b"secret");
        let secret = "insert into secrets (subscription, created_at_ms, sealed) values (?, 1, ?)";
        connection.execute(secret, params![b"owner", sealed]).unwrap();
        check_key(&connection, &own).expect("the number is damaged, and the key is right");
        check_key(&connection, &other).unwrap_err();
    }

    #[test]
    fn a_store_of_an_older_version_keeps_what_is_in_it() {
        let mut connection = Connection::open_in_memory().unwrap();
        for migration in &MIGRATIONS[..5] {
            connection.execute_batch(migration).unwrap();
        }
        let day_ms = 86_400_000;
        connection
            .execute_batch(&format!(
                "pragma user_version = 5;
                 insert into events (seq, id, same, tenant, format, attributes, accepted_at_ms, revision, type)
                 values (1, x'01', x'11', 'acme', 'cloudevents', '{{}}', {}, 1, 't'),
                        (2, x'02', x'12', 'acme', 'cloudevents', json_object('source', '/s', 'id', '2'), {}, 1, 't'),
                        (3, x'03', x'13', 'acme', 'cloudevents', json_object('source', '/s', 'id', '3'), {}, 1, 't');
                 insert into deliveries (id, tenant, subscription, event, event_seq, part, rendering, state,
                                         attempts, created_at_ms)
                 values (x'21', 'acme', x'31', x'01', 1, 0, x'41', 'pending', 0, 7),
                        (x'22', 'acme', x'31', x'02', 2, 0, x'41', 'delivered', 1, 8);",
                2 * day_ms,
                3 * day_ms,
                4 * day_ms
            ))
            .unwrap();
        migrate(&mut connection).unwrap();

        let all = |sql: &str| {
            let mut rows = connection.prepare(sql).unwrap();
            let rows = rows.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            rows.collect::<rusqlite::Result<Vec<(i64, i64)>>>().unwrap()
        };
        assert_eq!(
            all("select seq, accepted_at_ms / 86400000 from events"),
            [(1, 2), (2, 3), (3, 4)]
        );
        assert_eq!(all("select seq, day from published order by seq"), [(2, 3), (3, 4)]);
        assert_eq!(
            all(
                "select seq, cast(id as integer) from published where tenant = 'acme' and source = '/s'"
            ),
            [(2, 2), (3, 3)]
        );
        assert_eq!(all("select unsettled, created_at_ms from deliveries"), [(1, 7), (0, 8)]);
        connection.execute("update deliveries set state = 'dead'", ()).unwrap();
        assert_eq!(all("select deliveries, 0 from backlogs"), [(0, 0)]);
    }
}
