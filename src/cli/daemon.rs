//! The commands that work on the tiers themselves and not through a daemon.

use std::path::Path;

use super::Exit;

/// Runs the daemon until it is told to stop.
pub(super) fn serve(_config: Option<&Path>) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}

/// Brings the tables of the hot tier to this version.
pub(super) fn migrate(_config: Option<&Path>) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}

/// Reads the configuration and says what is wrong with it.
pub(super) fn check_config(_config: Option<&Path>) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}
