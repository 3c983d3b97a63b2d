//! What commands print.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stdout};

use anyhow::Context;

use crate::printable::Printable;

/// Nobody reads on, as in `hookyard … | head`. That ends a command, and is no failure.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads what is printed")]
pub(super) struct Unread;

/// Prints a line, as `println!` does, but for what steers a terminal, and answers with an error where that would panic.
macro_rules! say {
    ($($line:tt)*) => { $crate::cli::print::line(format_args!($($line)*)) };
}

pub(super) use say;

/// # Errors
///
/// [`Unread`], or it cannot be written.
pub(super) fn line(line: Arguments<'_>) -> anyhow::Result<()> {
    match writeln!(stdout(), "{}", Printable(line)) {
        Err(err) if err.kind() == ErrorKind::BrokenPipe => Err(Unread.into()),
        written => written.context("cannot print"),
    }
}
