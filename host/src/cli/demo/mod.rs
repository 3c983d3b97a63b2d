//! `hookyard demo`: a router at work, from the first subscription to the last receipt.

mod show;
mod stage;
mod subscribe;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use show::Totals;
use stage::{Expected, Stage};

const ACCOUNT: &str = "acme";
/// How long the last delivery may take to arrive.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many events are published to measure latency, and how fast.
const MEASURED_EVENTS: usize = 400;
const MEASURED_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// The filter plugin to upload; the one that this program brings along, unless given
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
}

impl Demo {
    /// # Errors
    ///
    /// Something did not arrive, or not as it should.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut stage = Stage::set(self.plugin.as_deref()).await?;
        show::heading("Events, and what became of each")?;
        let mut totals = Totals::default();
        let mut dropped = 0;
        for event in stage::events() {
            show::published(&event)?;
            let expected = stage.publish(&event).await?;
            totals.events += 1;
            dropped += usize::from(expected.paths.is_empty());
            collect(&mut stage, expected, &mut totals, true).await?;
        }
        stage.show_filtered(dropped, &mut totals).await?;

        show::heading(&format!(
            "{MEASURED_EVENTS} more, one every {MEASURED_EVERY:?}, to measure"
        ))?;
        let mut next = Instant::now();
        for number in 0..MEASURED_EVENTS {
            tokio::time::sleep_until(next).await;
            next += MEASURED_EVERY;
            let expected = stage.publish(&stage::measured_event(number)).await?;
            totals.events += 1;
            collect(&mut stage, expected, &mut totals, false).await?;
        }
        totals.failed = stage.list("failed").await?.len() + stage.list("dead").await?.len();
        stage.strike().await;
        show::totals(&mut totals)?;
        anyhow::ensure!(totals.failed == 0, "{} deliveries failed", totals.failed);
        Ok(())
    }
}

/// Waits for the deliveries of one event, and checks each.
async fn collect(
    stage: &mut Stage,
    mut expected: Expected,
    totals: &mut Totals,
    print: bool,
) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !expected.paths.is_empty() {
        let receipt = timeout_at(until, stage.receipts.recv()).await;
        let Ok(Some(receipt)) = receipt else {
            anyhow::bail!("{} did not arrive within {PATIENCE:?}", expected.paths.join(", "));
        };
        let at = expected.paths.iter().position(|path| *path == receipt.path);
        let at =
            at.ok_or_else(|| anyhow::anyhow!("`{}` got what it did not ask for", receipt.path))?;
        expected.paths.swap_remove(at);
        let verified = stage.verify(&receipt)?;
        totals.deliveries += 1;
        totals.latencies.push(receipt.at - expected.since);
        if print {
            show::received(&receipt, verified)?;
        }
    }
    Ok(())
}
