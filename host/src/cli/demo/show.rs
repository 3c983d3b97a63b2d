//! What the demo prints.

use std::time::Duration;

use serde_json::Value;

use super::verify::Verified;
use crate::api::receiver::Receipt;
use crate::cli::print::say;

/// What the demo adds up to.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) events: usize,
    pub(super) deliveries: usize,
    pub(super) filtered: usize,
    pub(super) failed: usize,
    /// From the publishing call to the receipt of each delivery.
    pub(super) latencies: Vec<Duration>,
}

pub(super) fn heading(text: &str) -> anyhow::Result<()> {
    say!("\n== {text}\n")
}

pub(super) fn fact(what: &str, text: &str) -> anyhow::Result<()> {
    say!("  {what:<14}{text}")
}

pub(super) fn published(event: &Value) -> anyhow::Result<()> {
    say!("{} {} published: {}", event["type"], event["id"], event["data"])
}

pub(super) fn received(it: &Receipt, verified: Verified) -> anyhow::Result<()> {
    say!("  received: POST {}", it.path)?;
    for (name, value) in &it.headers {
        say!("    {name}: {}", value.to_str().unwrap_or("(not text)"))?;
    }
    say!("    ({verified})")?;
    say!("    {}\n", String::from_utf8_lossy(&it.body))
}

pub(super) fn filtered(event: &Value, reason: &Value) -> anyhow::Result<()> {
    let attributes = &event["attributes"];
    say!(
        "{} {} not delivered: {} ({})",
        attributes["type"],
        attributes["id"],
        reason["code"],
        event["data"]
    )
}

pub(super) fn totals(it: &mut Totals) -> anyhow::Result<()> {
    it.latencies.sort_unstable();
    let at = |share: f64| {
        let last = it.latencies.len().saturating_sub(1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        #[expect(clippy::cast_precision_loss, reason = "there are few")]
        let index = (last as f64 * share).round() as usize;
        it.latencies.get(index).copied().unwrap_or_default()
    };
    say!("  events  deliveries  filtered  failed  accept to receipt p50       p99")?;
    say!(
        "  {:>6}  {:>10}  {:>8}  {:>6}  {:>21.2?}  {:>8.2?}",
        it.events,
        it.deliveries,
        it.filtered,
        it.failed,
        at(0.50),
        at(0.99),
    )
}
