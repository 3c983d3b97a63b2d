-- How deliveries are made, where the subscriber says so.
alter table subscriptions add column pace text not null default '{}';

-- How many attempts were made before the newest replay: the schedule begins anew with it.
alter table deliveries add column earlier_attempts integer not null default 0;

-- Deliveries that are made again, page by page.
create table replays (
    id blob primary key,
    tenant text not null,
    query text not null,
    -- Whether by the rendering that the subscription has now.
    present integer not null check (present in (0, 1)),
    per_minute integer,
    -- The number of the delivery that was looked at last, and of the last one that there was at the beginning.
    cursor integer not null,
    upto integer not null,
    total integer not null,
    replayed integer not null,
    skipped integer not null,
    state text not null check (state in ('running', 'done', 'cancelled')),
    created_at_ms integer not null,
    ended_at_ms integer
) strict;

create index replays_running on replays (id) where state = 'running';
create index replays_by_tenant on replays (tenant, id);

-- Subscriptions from whose endpoint nothing but failures has come since a time.
create table failing (
    subscription blob primary key,
    since_ms integer not null,
    -- How much of the time until it is disabled has been announced, in percent.
    announced integer not null
) strict, without rowid;
