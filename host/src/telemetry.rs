//! The log.

use std::io::{self, Write, stderr};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::Settings;
use crate::printable::log_line;

/// Sends the log to standard error.
///
/// # Errors
///
/// The filter is not one.
pub fn start(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log)
        .with_context(|| format!("the log filter `{}` is wrong", settings.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lines)
        // Colours are escapes of a terminal, and these are taken out of what is written.
        .with_ansi(false);
    if settings.log_json {
        log.json().init()
    } else {
        log.init()
    }
    Ok(())
}

/// Standard error. Each line comes as one piece.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        stderr().write_all(log_line(line).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}
