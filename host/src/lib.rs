//! Hookyard, a router for webhook events that its users extend with WebAssembly.
//!
//! An event comes in by `api`, is committed by `store`, matched and rendered by `router`, and delivered
//! by `dispatch`. What these know in common is further down: arrows go from the top of this list to
//! its end, and never back.
//!
//! - `cli`: the command line; `server`: assembles the rooms; `config`: every setting; `telemetry`: the log
//! - `api`: the HTTP surface; `manage`: makes and changes subscriptions and plugins
//! - `router`: stage 2, matches and renders; `dispatch`: stage 3, attempts and retries
//! - `app`: what is opened once and lent to all; `workers`: the threads that run plugins
//! - `health`: what plugins take, write and fail at
//! - `trial`: what plugins would do
//! - `render`: an event and a rendering make bodies; `formats`: one file a provider's format
//! - `wasm`: runs plugins; `index`: which subscriptions want an event; `schemas`: JSON Schemas
//! - `send`: one HTTP attempt; `egress`: which addresses are reached; `dns`: TXT records
//! - `sign`: signatures; `keys`: the router's own keys
//! - `publication`: an event as it is sent to us
//! - `store`: what is kept; `secret`: the server's key
//! - `event`, `subscription`, `delivery`, `plugin`: the nouns; `json`: JSON that stays text; `clock`
//! - `fault`: where a test has the process killed

pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod dispatch;
pub mod dns;
pub mod egress;
pub mod event;
mod fault;
pub mod formats;
pub mod health;
pub mod index;
pub mod json;
pub mod keys;
pub mod manage;
pub mod plugin;
pub mod publication;
pub mod render;
pub mod router;
pub mod schemas;
pub mod secret;
pub mod send;
pub mod server;
pub mod sign;
pub mod store;
pub mod subscription;
pub mod telemetry;
pub mod trial;
pub mod wasm;
pub mod workers;
