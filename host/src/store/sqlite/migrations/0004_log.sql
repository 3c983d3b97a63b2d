-- What the log is searched for.
alter table events add column type text not null default '';
alter table events add column subject text;
update events set type = attributes ->> 'type', subject = attributes ->> 'subject';
create index events_by_type on events (tenant, type, accepted_at_ms);
create index events_by_subject on events (tenant, subject, accepted_at_ms) where subject is not null;

-- `created_at_ms` is from now on when the event was accepted.
drop index deliveries_by_tenant;
drop index deliveries_by_subscription;
drop index deliveries_needing;
drop index deliveries_by_reason;
create index deliveries_by_tenant on deliveries (tenant, created_at_ms);
create index deliveries_by_subscription on deliveries (subscription, created_at_ms);
create index deliveries_by_event on deliveries (event_seq);
-- The delivered ones are most of all there are: whoever wants them finds them without an index.
create index deliveries_by_state on deliveries (tenant, state, created_at_ms)
    where state <> 'delivered';
create index deliveries_by_subscription_state on deliveries (subscription, state, created_at_ms)
    where state not in ('delivered', 'pending');
create index deliveries_by_reason on deliveries (tenant, reason ->> 'code', created_at_ms)
    where state in ('held', 'filtered', 'failed', 'dead');
create index deliveries_by_status on deliveries (tenant, attempt_status, created_at_ms)
    where attempt_status not between 200 and 299;
create index deliveries_held on deliveries (created_at_ms) where state = 'held';

create index subscriptions_by_url on subscriptions (tenant, url) where ended is null;

-- How an attempt went: its phases, the headers that were sent, and what plugins took.
alter table deliveries add column attempt_detail text not null default '{}';
alter table attempts add column detail text not null default '{}';
alter table attempts add column rendering blob;
alter table attempts add column body blob;

-- What happened, minute by minute: to each subscription, and under the nil id to all of a tenant.
create table minutes (
    tenant text not null,
    subscription blob not null,
    minute integer not null,
    events integer not null,
    duplicates integer not null,
    attempts integer not null,
    attempts_failed integer not null,
    delivered integer not null,
    dead integer not null,
    failed integer not null,
    filtered integer not null,
    duration_ms integer not null,
    duration_max_ms integer not null,
    primary key (tenant, subscription, minute)
) strict, without rowid;

create index minutes_by_time on minutes (minute);

drop table filtered;

-- With the same key, one delivery of a subscription is under way: the one that is at the head since a time.
-- The others wait for it, unless it has been passed over.
alter table deliveries add column order_key integer;
alter table deliveries add column head_since_ms integer;
alter table deliveries add column passed_over integer not null default 0 check (passed_over in (0, 1));
create index deliveries_ordered on deliveries (subscription, order_key, event_seq, part)
    where order_key is not null and state in ('pending', 'retrying', 'held');
create index deliveries_at_the_head on deliveries (subscription, head_since_ms)
    where head_since_ms is not null and passed_over = 0 and state = 'retrying';

-- What is not settled is due at a time, or out, or waits for its turn, or is held.
drop index deliveries_unsettled;
create index deliveries_out on deliveries (subscription)
    where due_at_ms is null and (order_key is null or head_since_ms is not null)
      and state in ('pending', 'retrying');

-- How many deliveries of a tenant are not settled.
create table backlogs (
    tenant text primary key,
    deliveries integer not null
) strict, without rowid;

insert into backlogs
    select tenant, count(*) from deliveries where state in ('pending', 'retrying', 'held') group by tenant;

create trigger deliveries_begun after insert on deliveries
when new.state in ('pending', 'retrying', 'held')
begin
    insert into backlogs (tenant, deliveries) values (new.tenant, 1)
    on conflict do update set deliveries = deliveries + 1;
end;

create trigger deliveries_settled after update of state on deliveries
when (old.state in ('pending', 'retrying', 'held')) <> (new.state in ('pending', 'retrying', 'held'))
begin
    insert into backlogs (tenant, deliveries) values (new.tenant, 1)
    on conflict do update
    set deliveries = deliveries + iif(new.state in ('pending', 'retrying', 'held'), 1, -1);
end;

create trigger deliveries_forgotten after delete on deliveries
when old.state in ('pending', 'retrying', 'held')
begin
    update backlogs set deliveries = deliveries - 1 where tenant = old.tenant;
end;
