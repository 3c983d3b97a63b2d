-- What plugins write during runs.
create table plugin_log (
    seq integer primary key,
    tenant text not null,
    digest blob not null,
    subscription blob not null,
    event blob not null,
    level text not null check (level in ('trace', 'debug', 'info', 'warn', 'error')),
    message text not null,
    at_ms integer not null
) strict;

create index plugin_log_by_plugin on plugin_log (tenant, digest, seq);
create index plugin_log_by_event on plugin_log (event, subscription);

-- Subscriptions whose plugin failed so often that their deliveries are held.
create table quarantines (
    subscription blob primary key,
    tenant text not null,
    digest blob not null,
    code text not null,
    detail text not null,
    since_ms integer not null,
    probes integer not null,
    probe_at_ms integer not null
) strict, without rowid;

-- Whether a version that fails is replaced by the one before it.
alter table plugins add column rolls_back integer not null default 0 check (rolls_back in (0, 1));

create index deliveries_by_reason on deliveries (tenant, reason ->> 'code', seq)
    where state in ('held', 'filtered', 'failed', 'dead');
