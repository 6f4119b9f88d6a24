//! Manual pages, made from the same definitions as `--help`.

use anyhow::Context as _;
use clap::Command;

const EXIT_STATUS: &str = "\
.SH \"EXIT STATUS\"
0: done, or found. 1: nothing found. 2: an error.
.B logtier exec
ends with the exit status of its command.
";

/// The page of the program, or of one of its commands, in roff.
pub(super) fn page(mut program: Command, command: Option<&str>) -> anyhow::Result<Vec<u8>> {
    // Gives each command its full name, "logtier-logs".
    program.build();
    let about = match command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name);
            found.with_context(|| format!("there is no command \"{name}\""))?.clone()
        }
    };
    let title = about.get_display_name().unwrap_or("logtier").to_owned();
    let mut page = Vec::new();
    clap_mangen::Man::new(about).title(title).render(&mut page).context("write the page")?;
    page.extend_from_slice(EXIT_STATUS.as_bytes());
    Ok(page)
}
