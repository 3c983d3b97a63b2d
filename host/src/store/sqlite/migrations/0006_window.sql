-- An event is known by what makes it one for a day or two, and no longer: what is looked up and written at a
-- random place for each event stays small, however long the log is.
--
-- A list behind `in` that has more than two values is made into a table at each row that is written, so there
-- is none in what is evaluated then.

create table events_leaner (
    seq integer primary key,
    id blob not null unique,
    tenant text not null,
    format text not null,
    attributes text not null,
    data_kind text check (data_kind = 'json' or data_kind = 'text' or data_kind = 'binary'),
    data blob,
    alternate_ids text,
    accepted_at_ms integer not null,
    revision integer not null,
    type text not null,
    subject text
) strict;

-- `same` is a hash of what makes two publications one event: tenant, source and the publisher's id. The day is
-- the one on which it was accepted, counted from 1970.
create table published (
    day integer not null,
    same blob not null,
    seq integer not null,
    primary key (day, same)
) strict, without rowid;

insert into published
    select accepted_at_ms / 86400000, same, seq from events
    where accepted_at_ms / 86400000 >= (select max(accepted_at_ms) / 86400000 - 1 from events);

insert into events_leaner
    select seq, id, tenant, format, attributes, data_kind, data, alternate_ids, accepted_at_ms, revision,
           type, subject
    from events;
drop table events;
alter table events_leaner rename to events;
create index events_by_tenant on events (tenant, seq);
create index events_by_type on events (tenant, type, accepted_at_ms);
create index events_by_subject on events (tenant, subject, accepted_at_ms) where subject is not null;

create table deliveries_leaner (
    seq integer primary key,
    id blob not null unique,
    tenant text not null,
    subscription blob not null,
    event blob not null,
    event_seq integer not null,
    part integer not null,
    rendering blob not null,
    body blob,
    state text not null check (
        state = 'delivered' or state = 'pending' or state = 'retrying' or state = 'dead' or state = 'held'
        or state = 'filtered' or state = 'failed' or state = 'cancelled'),
    reason text,
    due_at_ms integer,
    attempts integer not null,
    attempt_at_ms integer,
    attempt_duration_ms integer,
    attempt_status integer,
    attempt_answer blob,
    attempt_error text,
    created_at_ms integer not null,
    earlier_attempts integer not null default 0,
    attempt_detail text not null default '{}',
    order_key integer,
    head_since_ms integer,
    passed_over integer not null default 0 check (passed_over = 0 or passed_over = 1),
    unsettled integer as (state = 'pending' or state = 'retrying' or state = 'held') virtual
) strict;

insert into deliveries_leaner (seq, id, tenant, subscription, event, event_seq, part, rendering, body, state,
        reason, due_at_ms, attempts, attempt_at_ms, attempt_duration_ms, attempt_status, attempt_answer,
        attempt_error, created_at_ms, earlier_attempts, attempt_detail, order_key, head_since_ms, passed_over)
    select seq, id, tenant, subscription, event, event_seq, part, rendering, body, state,
        reason, due_at_ms, attempts, attempt_at_ms, attempt_duration_ms, attempt_status, attempt_answer,
        attempt_error, created_at_ms, earlier_attempts, attempt_detail, order_key, head_since_ms, passed_over
    from deliveries;
drop table deliveries;
alter table deliveries_leaner rename to deliveries;

create index deliveries_by_tenant on deliveries (tenant, created_at_ms);
create index deliveries_by_subscription on deliveries (subscription, created_at_ms);
create index deliveries_by_event on deliveries (event_seq);
create index deliveries_due on deliveries (subscription, due_at_ms) where due_at_ms is not null;
-- The delivered ones are most of all there are: whoever wants them finds them without an index.
create index deliveries_by_state on deliveries (tenant, state, created_at_ms)
    where state <> 'delivered';
create index deliveries_by_subscription_state on deliveries (subscription, state, created_at_ms)
    where state not in ('delivered', 'pending');
create index deliveries_by_reason on deliveries (tenant, reason ->> 'code', created_at_ms)
    where state = 'held' or state = 'filtered' or state = 'failed' or state = 'dead';
create index deliveries_by_status on deliveries (tenant, attempt_status, created_at_ms)
    where attempt_status not between 200 and 299;
create index deliveries_held on deliveries (created_at_ms) where state = 'held';
create index deliveries_ordered on deliveries (subscription, order_key, event_seq, part)
    where order_key is not null and unsettled;
create index deliveries_at_the_head on deliveries (subscription, head_since_ms)
    where head_since_ms is not null and passed_over = 0 and state = 'retrying';
-- What is not settled is due at a time, or out, or waits for its turn, or is held.
create index deliveries_out on deliveries (subscription)
    where due_at_ms is null and (order_key is null or head_since_ms is not null)
      and state in ('pending', 'retrying');

-- How many deliveries of a tenant are not settled.
create trigger deliveries_begun after insert on deliveries
when new.unsettled
begin
    insert into backlogs (tenant, deliveries) values (new.tenant, 1)
    on conflict do update set deliveries = deliveries + 1;
end;

create trigger deliveries_settled after update of state on deliveries
when old.unsettled <> new.unsettled
begin
    insert into backlogs (tenant, deliveries) values (new.tenant, 1)
    on conflict do update set deliveries = deliveries + iif(new.unsettled, 1, -1);
end;

create trigger deliveries_forgotten after delete on deliveries
when old.unsettled
begin
    update backlogs set deliveries = deliveries - 1 where tenant = old.tenant;
end;
