//! Hookyard, a router for webhook events that its users extend with WebAssembly.
//!
//! An event comes in by `api`, is committed by `store`, matched and rendered by `router`, and delivered
//! by `dispatch`. What these know in common is further down: arrows go from the top of this list to
//! its end, and never back.
//!
//! - `cli`: the command line; `server`: assembles the rooms; `config`: every setting; `telemetry`: the log
//! - `printable`: text that steers no terminal
//! - `api`: the HTTP surface; `manage`: makes and changes subscriptions and plugins
//! - `router`: stage 2, matches and renders; `dispatch`: stage 3, attempts and retries
//! - `app`: what is opened once and lent to all; `inbox`: deliveries on their way to stage 3
//! - `supervise`: the tasks that a router is made of; `marks`: what each worker works on
//! - `health`: what plugins take, write and fail at
//! - `trial`: what plugins would do
//! - `render`: an event and a rendering make bodies; `formats`: one file a provider's format
//! - `wasm`: runs plugins; `index`: which subscriptions want an event; `schemas`: JSON Schemas
//! - `send`: one HTTP attempt; `egress`: which addresses and ports are reached; `dns`: names of endpoints
//! - `patience`: deadlines for what others have to do; `descriptors`: how those of the process are shared
//! - `sign`: signatures; `keys`: the router's own keys
//! - `store`: what is kept; `secret`: the server's key
//! - `fair`: what tenants share
//! - `hookyard_nouns`, a crate of its own: events, subscriptions, deliveries, JSON that stays text, the clock
//! - `fault`: where a test has the process killed

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod descriptors;
pub mod dispatch;
pub mod dns;
pub mod egress;
pub mod fair;
mod fault;
pub mod formats;
pub mod health;
pub mod inbox;
pub mod index;
pub mod keys;
pub mod manage;
pub mod marks;
pub mod patience;
pub mod printable;
pub mod render;
pub mod router;
pub mod schemas;
pub mod secret;
pub mod send;
pub mod server;
pub mod sign;
pub mod store;
pub mod supervise;
pub mod telemetry;
pub mod trial;
pub mod wasm;
