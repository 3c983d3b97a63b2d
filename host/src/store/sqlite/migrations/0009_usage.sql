-- How large a state of a subscription is, as far as its tenant chooses that.
alter table subscriptions add column size integer generated always as (
    octet_length(name) + octet_length(url) + octet_length(filters) + octet_length(format_steps)
    + octet_length(steps) + octet_length(pace) + octet_length(document)
) virtual;

-- What each tenant has, of what it can make more of.
create table usage (
    tenant text primary key,
    subscriptions integer not null default 0,
    subscription_bytes integer not null default 0,
    tokens integer not null default 0,
    identities integer not null default 0,
    settings_bytes integer not null default 0
) strict, without rowid;

insert into usage
    select tenant,
           (select count(*) from subscriptions as its where its.tenant = tenants.tenant and ended is null),
           (select coalesce(sum(size), 0) from subscriptions as its
            where its.tenant = tenants.tenant and ended is null),
           (select count(*) from tokens as its where its.tenant = tenants.tenant),
           (select count(*) from identities as its where its.tenant = tenants.tenant),
           (select coalesce(sum(octet_length(settings)), 0) from account_settings as its
            where its.tenant = tenants.tenant)
    from tenants;

create trigger subscriptions_begun after insert on subscriptions
when new.ended is null
begin
    insert into usage (tenant, subscriptions, subscription_bytes) values (new.tenant, 1, new.size)
    on conflict do update set subscriptions = subscriptions + 1,
                              subscription_bytes = subscription_bytes + excluded.subscription_bytes;
end;

create trigger subscriptions_ended after update of ended on subscriptions
when old.ended is null and new.ended is not null
begin
    update usage set subscriptions = subscriptions - 1, subscription_bytes = subscription_bytes - old.size
    where tenant = old.tenant;
end;

create trigger tokens_given after insert on tokens
when new.tenant is not null
begin
    insert into usage (tenant, tokens) values (new.tenant, 1)
    on conflict do update set tokens = tokens + 1;
end;

create trigger tokens_forgotten after delete on tokens
when old.tenant is not null
begin
    update usage set tokens = tokens - 1 where tenant = old.tenant;
end;

create trigger identities_given after insert on identities
begin
    insert into usage (tenant, identities) values (new.tenant, 1)
    on conflict do update set identities = identities + 1;
end;

create trigger identities_forgotten after delete on identities
begin
    update usage set identities = identities - 1 where tenant = old.tenant;
end;

create trigger settings_given after insert on account_settings
begin
    insert into usage (tenant, settings_bytes) values (new.tenant, octet_length(new.settings))
    on conflict do update set settings_bytes = settings_bytes + excluded.settings_bytes;
end;

create trigger settings_changed after update of settings on account_settings
begin
    update usage set settings_bytes = settings_bytes + octet_length(new.settings) - octet_length(old.settings)
    where tenant = new.tenant;
end;

create index replays_running_of on replays (tenant) where state = 'running';

-- Subscriptions that are gone, and that have deliveries which are to be cancelled.
create table ending (
    subscription blob primary key
) strict, without rowid;
