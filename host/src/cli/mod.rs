//! The command line: one file a command.

mod client;
mod demo;
mod plugin;
mod print;
mod serve;
mod store;
mod token;

use clap::{Parser, Subcommand};

use crate::app::server_key;
use crate::config::{Settings, styles};
use crate::store::{Sharing, Signals, Sqlite};

/// A webhook event router that people extend with WebAssembly.
///
/// Publishers send CloudEvents; Hookyard finds the subscriptions that want them, runs their plugins,
/// and delivers, signed, again and again until it has arrived.
#[derive(Debug, Parser)]
#[command(name = "hookyard", version, styles = styles(), arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the router
    ///
    /// Needs no configuration: everything is kept in `hookyard.sqlite`. Make a token with
    /// `hookyard token create` and publish to `POST /v1/events`.
    Serve(Box<serve::Serve>),
    /// Make, list and revoke the tokens that calls of the API carry
    Token(token::Tokens),
    /// Show, prune and check what is kept
    Store(store::StoreCommand),
    /// Write, build, test and upload plugins
    Plugin(plugin::Plugin),
    /// Show a router at work, on a temporary store and with a receiver on this machine
    Demo(demo::Demo),
    /// What the router starts to compile a plugin, in a process with limits
    #[cfg(feature = "compiler")]
    #[command(hide = true)]
    CompilePlugin,
}

/// Opens the store of a router, for use beside it or without it.
fn shared_store(settings: &Settings) -> anyhow::Result<Sqlite> {
    let signals = Signals { accepted: Box::new(|_| ()), changed: Box::new(|| ()) };
    let (path, key) = (settings.sqlite_path()?, server_key(settings)?);
    Sqlite::open(path, key, Sharing::Shared, settings.quotas(), signals)
}

impl Cli {
    /// Runs the command that was typed.
    ///
    /// # Errors
    ///
    /// What went wrong, for a person to read.
    pub fn run(self) -> anyhow::Result<()> {
        #[cfg(feature = "compiler")]
        if matches!(self.command, Command::CompilePlugin) {
            return crate::wasm::serve_one();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(async {
            match self.command {
                Command::Serve(command) => command.run().await,
                Command::Token(command) => command.run().await,
                Command::Store(command) => command.run().await,
                Command::Plugin(command) => command.run().await,
                Command::Demo(command) => command.run().await,
                #[cfg(feature = "compiler")]
                Command::CompilePlugin => unreachable!("it needs no runtime"),
            }
        });
        // A thread that waits for a disk is not waited for.
        runtime.shutdown_background();
        match ended {
            Err(err) if err.is::<print::Unread>() => Ok(()),
            ended => ended,
        }
    }
}
