//! `hookyard store stats|prune|check`

use clap::Subcommand;
use hookyard_nouns::clock;
use serde_json::json;

use super::print::say;
use super::shared_store;
use crate::config::Given;
use crate::store::{Retention, Sqlite, Store};

#[derive(Debug, clap::Args)]
pub(super) struct StoreCommand {
    /// Where everything is kept: `sqlite:PATH`, the same as the router's
    #[arg(long, value_name = "URL", env = "HOOKYARD_STORE", global = true)]
    store: Option<String>,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show how much is in the store
    Stats,
    /// Forget now what is old, and give the space back
    ///
    /// What is not settled is never forgotten. May be used beside a router that runs.
    Prune {
        /// For how many days the data of events are kept once they are settled
        #[arg(long, value_name = "DAYS", env = "HOOKYARD_RETENTION_PAYLOAD_DAYS")]
        retention_payload_days: Option<u32>,
        /// For how many days events, deliveries and attempts are kept
        #[arg(long, value_name = "DAYS", env = "HOOKYARD_RETENTION_ATTEMPT_DAYS")]
        retention_attempt_days: Option<u32>,
    },
    /// Look whether the store is sound
    ///
    /// Reads all of it. Ends with 1 where something is wrong, and says what.
    Check,
}

impl StoreCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let settings = Given { store: self.store, ..Given::default() }.settle();
        let path = settings.sqlite_path()?;
        anyhow::ensure!(path.exists(), "there is no store `{}`", path.display());
        let store = shared_store(&settings)?;
        let result = match self.command {
            Command::Stats => stats(&store, self.json).await,
            Command::Prune { retention_payload_days, retention_attempt_days } => {
                let given =
                    Given { retention_payload_days, retention_attempt_days, ..Given::default() };
                prune(&store, given.settle().retention(), self.json).await
            }
            Command::Check => check(&store, self.json).await,
        };
        store.close().await;
        result
    }
}

async fn stats(store: &Sqlite, json: bool) -> anyhow::Result<()> {
    let it = store.stats().await?;
    let time = |ms: Option<i64>| ms.map(clock::rfc3339);
    let (event, data) = (time(it.oldest_event_ms), time(it.oldest_data_ms));
    if json {
        return say!(
            "{}",
            json!({
                "bytes": it.bytes, "free_bytes": it.free_bytes, "events": it.events,
                "deliveries": it.deliveries, "unsettled": it.unsettled,
                "subscriptions": it.subscriptions, "plugin_versions": it.plugins,
                "oldest_event_at": event, "oldest_data_at": data,
            })
        );
    }
    let none = || "none".to_owned();
    say!("bytes            {:>15}", it.bytes)?;
    say!("of them free     {:>15}", it.free_bytes)?;
    say!("events           {:>15}", it.events)?;
    say!("deliveries       {:>15}", it.deliveries)?;
    say!("not settled      {:>15}", it.unsettled)?;
    say!("subscriptions    {:>15}", it.subscriptions)?;
    say!("plugin versions  {:>15}", it.plugins)?;
    say!("oldest event     {}", event.unwrap_or_else(none))?;
    say!("oldest data      {}", data.unwrap_or_else(none))
}

async fn prune(store: &Sqlite, retention: Retention, json: bool) -> anyhow::Result<()> {
    let before = store.stats().await?;
    while store.prune(clock::now_ms(), retention).await?.more {}
    let after = store.stats().await?;
    let gone = |before: u64, after: u64| before.saturating_sub(after);
    let events = gone(before.events, after.events);
    let deliveries = gone(before.deliveries, after.deliveries);
    let bytes = gone(before.bytes, after.bytes);
    if json {
        return say!("{}", json!({"events": events, "deliveries": deliveries, "bytes": bytes}));
    }
    say!("forgot {events} events and {deliveries} deliveries, and gave {bytes} bytes back")
}

async fn check(store: &Sqlite, json: bool) -> anyhow::Result<()> {
    let faults = store.check().await?;
    if json {
        say!("{}", json!({"sound": faults.is_empty(), "faults": faults}))?;
    } else if faults.is_empty() {
        say!("the store is sound")?;
    } else {
        faults.iter().try_for_each(|it| say!("{it}"))?;
    }
    anyhow::ensure!(faults.is_empty(), "the store is not sound");
    Ok(())
}
