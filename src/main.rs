//! The `logtier` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    logtier::cli::run()
}
