//! `hookyard serve`

use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::print::say;
use crate::config::Given;
use crate::server::Server;
use crate::telemetry;

#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// A file with settings, in TOML: the names are those of the flags, without dashes in front
    #[arg(long, value_name = "PATH", env = "HOOKYARD_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Given,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let settings = self.settings.with_file(self.config.as_deref())?.settle();
        telemetry::start(&settings)?;
        raise_file_limit();
        // Asked for before anything is opened, so that no signal is missed.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let server = Server::start(settings).await?;
        // A router is one even where nobody reads this.
        say!("hookyard listens on http://{}", server.address()).ok();
        let failure = tokio::select! {
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            why = server.failure() => Some(why),
        };
        tracing::info!("stops; a second signal ends it at once");
        let all_ended = tokio::select! {
            all_ended = server.stop() => all_ended,
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
        };
        if let Some(why) = failure {
            anyhow::bail!("{why}");
        }
        anyhow::ensure!(all_ended, "not everything has ended within `shutdown-ms`");
        Ok(())
    }
}

/// Every request that is out has a file, and a shell gives a process far fewer of them than the system
/// would: 1,024 as a rule.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where the system refuses what it has offered, it stays as it was.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).ok();
}
