-- A replay goes along the index that its search goes along. One that is running begins anew.
alter table replays drop column cursor;
alter table replays drop column upto;
-- Where it has come to.
alter table replays add column place text;
