//! The tests of the whole: a real router, real sockets, real plugins.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;

mod accept; // publishing: modes, checks, limits, duplicates
mod access; // tokens, scopes and tenants
mod adding; // the guide on adding a format
mod commands; // what commands do without a router
mod crash; // how a process starts and ends
mod deliver; // attempts, retries, endpoints that misbehave
mod fault; // faults, each with what it costs
mod flow; // endpoints that take little, or nothing for a while
mod formats; // the providers' APIs, case by case
mod health; // what plugins write and take, and when they are held back
mod hostile; // files and guests that want to do harm
mod languages; // plugins in every language, from nothing to a delivery
mod log; // the delivery log: found, exported, purged, counted; publishers that wait
mod login; // how clients of the providers come by tokens
mod manners; // of the APIs of providers: paths, methods, links
mod model; // random operations against a model of what has to come of them
mod mypreferences; // its deliveries
mod neighbours; // nobody stops, starves or swells the router
mod order; // deliveries one after the other, by key and after a pause
mod peers; // publishers, receivers and clients that others have written
mod pipeline; // plugins on the way of an event, good and bad
mod proof; // endpoints show that they want deliveries
mod providers; // deliveries of the providers' formats
mod registry; // versions of plugins
mod replays; // deliveries that are made again
mod schemas; // requests and samples fit, and their single faults do not
mod soak; // a long load with failures, on demand
mod subscribe; // our own subscriptions
mod tidy; // the project itself
mod trials; // what plugins would do
mod uploads; // what is not a plugin
mod wire; // what goes over the wire, to the letter
