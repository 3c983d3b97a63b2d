//! The binary `hookyard`: parses, runs one command, and chooses the exit code.

use std::process::ExitCode;

use clap::Parser;
use hookyard::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("hookyard: {err:#}");
            ExitCode::FAILURE
        }
    }
}
