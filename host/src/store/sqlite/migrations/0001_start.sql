create table meta (
    name text primary key,
    value integer not null
) strict, without rowid;

insert into meta (name, value) values ('revision', 0);

create table tenants (
    tenant text primary key,
    created_at_ms integer not null
) strict, without rowid;

create table tokens (
    id blob primary key,
    hash blob not null unique,
    tenant text references tenants (tenant),
    scopes text not null,
    created_at_ms integer not null,
    expires_at_ms integer,
    revoked_at_ms integer,
    -- The token that this one was given out for; it ends with that one.
    parent blob references tokens (id)
) strict;

create index tokens_by_parent on tokens (parent) where parent is not null;

-- What an account has set in a provider's API.
create table account_settings (
    tenant text not null,
    format text not null,
    settings text not null,
    primary key (tenant, format)
) strict, without rowid;

-- The router's own keys.
create table signing_keys (
    selector text primary key,
    sealed blob not null
) strict, without rowid;

create table identities (
    tenant text not null,
    profile text not null,
    kind text not null,
    id text not null,
    primary key (tenant, profile, kind)
) strict, without rowid;

-- `same` is a hash of what makes two publications one event: tenant, source and the publisher's id.
create table events (
    seq integer primary key,
    id blob not null unique,
    same blob not null unique,
    tenant text not null,
    format text not null,
    attributes text not null,
    data_kind text check (data_kind in ('json', 'text', 'binary')),
    data blob,
    alternate_ids text,
    accepted_at_ms integer not null,
    revision integer not null
) strict;

create index events_by_tenant on events (tenant, seq);

-- Every event of the tenant up to `upto` is routed, and those in `beyond` are, too.
create table routed (
    tenant text primary key,
    upto integer not null,
    beyond text not null
) strict, without rowid;

create table renderings (
    hash blob primary key,
    definition text not null
) strict, without rowid;

-- One row for each state of a subscription, with the revisions between which it holds.
create table subscriptions (
    id blob not null,
    revision integer not null,
    ended integer,
    tenant text not null,
    format text not null,
    provider_id text not null,
    name text not null,
    url text not null,
    state text not null check (state in ('active', 'paused', 'disabled')),
    catch_up integer not null check (catch_up in (0, 1)),
    filters text not null,
    format_steps text not null,
    steps text not null,
    rendering blob not null references renderings (hash),
    rate_per_minute integer,
    document text not null,
    created_at_ms integer not null,
    updated_at_ms integer not null,
    primary key (id, revision)
) strict, without rowid;

create unique index subscriptions_present on subscriptions (tenant, id) where ended is null;
create unique index subscriptions_by_provider_id
    on subscriptions (tenant, format, provider_id) where ended is null;
create index subscriptions_by_revision on subscriptions (revision);
create index subscriptions_by_end on subscriptions (ended) where ended is not null;

create table subscription_numbers (
    tenant text not null,
    format text not null,
    number integer not null,
    primary key (tenant, format)
) strict, without rowid;

-- What no two subscriptions of a tenant may have in a format.
create table subscription_keys (
    tenant text not null,
    format text not null,
    key text not null,
    subscription blob not null,
    primary key (tenant, format, key)
) strict, without rowid;

create index subscription_keys_by_subscription on subscription_keys (subscription);

create table secrets (
    subscription blob not null,
    created_at_ms integer not null,
    sealed blob not null,
    valid_until_ms integer,
    primary key (subscription, created_at_ms)
) strict, without rowid;

-- The empty tenant is the operator, who shares with all.
create table plugins (
    tenant text not null,
    name text not null,
    digest blob not null,
    -- The version that was current before.
    previous blob,
    primary key (tenant, name)
) strict, without rowid;

create table plugin_versions (
    tenant text not null,
    name text not null,
    digest blob not null,
    size_bytes integer not null,
    world text not null,
    manifest text not null,
    deprecated text,
    created_at_ms integer not null,
    primary key (tenant, name, digest)
) strict, without rowid;

create index plugin_versions_by_digest on plugin_versions (digest);

create table plugin_files (
    digest blob primary key,
    file blob not null
) strict;

-- With the newest attempt; the ones before it are in `attempts`. A delivery that is being attempted is
-- pending or retrying and not due.
create table deliveries (
    seq integer primary key,
    id blob not null unique,
    tenant text not null,
    subscription blob not null,
    event blob not null,
    event_seq integer not null,
    part integer not null,
    rendering blob not null,
    body blob,
    state text not null check (state in
        ('pending', 'retrying', 'delivered', 'dead', 'held', 'filtered', 'failed', 'cancelled')),
    reason text,
    due_at_ms integer,
    attempts integer not null,
    attempt_at_ms integer,
    attempt_duration_ms integer,
    attempt_status integer,
    attempt_answer blob,
    attempt_error text,
    created_at_ms integer not null
) strict;

create index deliveries_by_tenant on deliveries (tenant, seq);
create index deliveries_by_subscription on deliveries (subscription, seq);
create index deliveries_due on deliveries (subscription, due_at_ms) where due_at_ms is not null;
create index deliveries_unsettled on deliveries (subscription, state)
    where state in ('pending', 'retrying', 'held');
create index deliveries_needing on deliveries (event_seq)
    where state in ('pending', 'retrying', 'held');

create table attempts (
    delivery blob not null,
    number integer not null,
    at_ms integer not null,
    duration_ms integer not null,
    status integer,
    answer blob not null,
    error text,
    primary key (delivery, number)
) strict, without rowid;

create table filtered (
    subscription blob not null,
    minute integer not null,
    count integer not null,
    primary key (subscription, minute)
) strict, without rowid;
