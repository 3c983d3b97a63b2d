//! `hookyard plugin`: from nothing to a running plugin.

mod build;
mod cases;
mod local;
mod new;
mod project;
mod remote;
mod replay;
mod test;

use std::path::PathBuf;

use clap::Subcommand;

use project::Project;

#[derive(Debug, clap::Args)]
pub(super) struct Plugin {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a new plugin that works, with its tests
    New(new::New),
    /// Build the plugin of this folder, and check that the router would take it
    Build(Here),
    /// Run the plugin of this folder over its cases, with the router's own engine and limits
    Test(test::Test),
    /// Upload the plugin of this folder, or a file
    Push(remote::Push),
    /// Show what a plugin writes
    Logs(remote::Logs),
    /// Have the router run a plugin on an event, without delivering anything
    Try(remote::Try),
    /// Make the body of a delivery again, on this machine, and compare it with what was sent
    Replay(replay::Replay),
}

/// The folder of a plugin.
#[derive(Clone, Debug, clap::Args)]
struct Here {
    /// The folder of the plugin, with its `hookyard.toml`
    #[arg(long, value_name = "PATH", default_value = ".")]
    folder: PathBuf,
}

impl Here {
    fn project(&self) -> anyhow::Result<Project> {
        Project::open(&self.folder)
    }
}

impl Plugin {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::New(command) => command.run(),
            Command::Build(here) => build::run(&here.project()?),
            Command::Test(command) => command.run(),
            Command::Push(command) => command.run().await,
            Command::Logs(command) => command.run().await,
            Command::Try(command) => command.run().await,
            Command::Replay(command) => command.run().await,
        }
    }
}
