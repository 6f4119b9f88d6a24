//! The file of an SQLite database: its owner's alone, and one daemon's at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;

use super::{Engine, Error, Result};

/// Logs hold what nobody meant to show.
const OWNER_ONLY: u32 = 0o600;

/// Where the database of this URL stands; none for a server or a database in memory.
fn path_of(url: &str) -> Result<Option<PathBuf>> {
    if Engine::of(url) != Engine::Sqlite {
        return Ok(None);
    }
    let options: SqliteConnectOptions = url.parse()?;
    let path = options.get_filename();
    // A database in memory has a name of sqlx's that looks like a URL.
    let is_file = !path.as_os_str().as_encoded_bytes().starts_with(b"file:") && path != Path::new(":memory:");
    Ok(is_file.then(|| path.to_owned()))
}

/// Creates the database empty, if it is not there, so that it is not created for everybody to read. What
/// SQLite puts beside it gets the same permissions.
pub(super) fn create(url: &str) -> Result<()> {
    let Some(path) = path_of(url)? else { return Ok(()) };
    let created = OpenOptions::new().create(true).append(true).mode(OWNER_ONLY).open(&path);
    created.map(drop).map_err(|error| Error::Configuration(format!("open {}: {error}", path.display())))
}

/// A database that no other daemon serves, as long as this is held. The system lets go of it when the
/// process ends, however that happens.
///
/// Two processes could write to one file, but an archiver, an ingest and a cache in each would wait for
/// the one lock of the whole file, and a second daemon there is a mistake, not a cluster.
#[derive(Debug)]
pub struct OneDaemon(#[expect(dead_code, reason = "holds the lock")] File);

impl OneDaemon {
    /// Takes the database of this URL; none where several daemons may share it.
    pub fn take(url: &str) -> Result<Option<Self>> {
        let Some(database) = path_of(url)? else { return Ok(None) };
        let mut path = database.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed =
            |error: io::Error| Error::Configuration(format!("lock the database with {}: {error}", path.display()));
        let options = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(OWNER_ONLY).clone();
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(20).read_to_string(&mut holder);
                let holder = holder.trim();
                let process = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
                return Err(Error::Configuration(format!(
                    "another daemon{process} serves {}: an SQLite database is for one daemon alone; stop that one, \
                     or let several share MySQL or MariaDB (hot.url)",
                    database.display()
                )));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Some(Self(file)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_database_is_its_owners_and_one_daemons() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hot.db");
        let url = format!("sqlite://{}?mode=rwc", path.display());
        create(&url).expect("created");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, OWNER_ONLY);
        let first = OneDaemon::take(&url).expect("free").expect("a file");
        let second = OneDaemon::take(&url).expect_err("taken").to_string();
        assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
        drop(first);
        assert!(OneDaemon::take(&url).expect("free again").is_some());
        // What is there keeps the permissions that someone gave it.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("changed");
        create(&url).expect("there already");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
        for elsewhere in ["mysql://db/logtier", "sqlite::memory:"] {
            create(elsewhere).expect("nothing to create");
            assert!(OneDaemon::take(elsewhere).expect("shared").is_none());
        }
    }
}
