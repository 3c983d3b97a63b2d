-- The origin that an endpoint has agreed to get deliveries from, which each of them names.
alter table subscriptions add column agreed_origin text;
