-- A sum of what an event, a subscription, a token or an identity is, and of how far routing has come: a bit that a
-- disk has turned is found when the row is read. Rows of before have none.
alter table events add column sum integer;
alter table subscriptions add column sum integer;
alter table tokens add column sum integer;
alter table identities add column sum integer;
alter table routed add column sum integer;

-- What was being worked on when a process died: how often, and by which rendering bodies of the event were made.
-- While it was being matched, that is empty.
create table crashes (
    event blob not null,
    rendering blob not null,
    count integer not null,
    -- By which version of the program. Another one may do better.
    version text not null,
    at_ms integer not null,
    primary key (event, rendering)
) strict, without rowid;

-- A reason that is no JSON any more is not to keep its delivery from being changed.
drop index deliveries_by_reason;
create index deliveries_by_reason
    on deliveries (tenant, iif(json_valid(reason), reason ->> 'code', null), created_at_ms)
    where state = 'held' or state = 'filtered' or state = 'failed' or state = 'dead';
