//! The binary `hookyard`: parses, runs one command, and chooses the exit code.

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::Parser;
use hookyard::cli::Cli;
use hookyard::printable::Printable;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // Where nobody reads that either, the exit code has to say it.
            writeln!(stderr(), "hookyard: {}", Printable(format_args!("{err:#}"))).ok();
            ExitCode::FAILURE
        }
    }
}
