//! Which logs are done: a file with a line for each, appended to and never changed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// The first line; a file that begins otherwise is none of ours.
const TITLE: &str = "logtier import journal 1";

/// What an earlier import, or this one, has done.
#[derive(Debug)]
pub(super) struct Journal {
    /// Hashes of lines, 16 bytes of memory each: of ten million logs, two have the same hash once in 400,000 imports,
    /// and `--again` looks at all of them.
    done: HashSet<u64>,
    file: Option<File>,
}

/// `$XDG_STATE_HOME/logtier/import/{hash}.journal`, one for each source, cluster and app.
pub(super) fn default_path(names: &[&str]) -> anyhow::Result<PathBuf> {
    let root =
        crate::cli::spool::state_root().context("neither XDG_STATE_HOME nor HOME is set; give --journal FILE")?;
    Ok(root.join(format!("import/{:032x}.journal", xxh3_128(names.join("\n").as_bytes()))))
}

impl Journal {
    /// Remembers nothing.
    pub(super) fn none() -> Self {
        Self { done: HashSet::new(), file: None }
    }

    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        file.try_lock().map_err(|_| io::Error::other("another import is using it"))?;
        let mut reader = BufReader::new(&file);
        let (mut done, mut line, mut whole) = (HashSet::new(), Vec::new(), 0);
        while reader.read_until(b'\n', &mut line)? > 0 {
            // What a kill cut short does not count.
            let Some(text) = line.strip_suffix(b"\n") else { break };
            if whole == 0 && text != TITLE.as_bytes() {
                return Err(io::Error::other("it is no journal of an import"));
            }
            done.insert(xxh3_64(text));
            whole += line.len() as u64;
            line.clear();
        }
        file.set_len(whole)?;
        if whole == 0 {
            writeln!(file, "{TITLE}")?;
        }
        Ok(Self { done, file: Some(file) })
    }

    pub(super) fn holds(&self, name: &str, version: &str) -> bool {
        self.done.contains(&xxh3_64(entry(name, version).as_bytes()))
    }

    pub(super) fn note(&mut self, name: &str, version: &str) -> io::Result<()> {
        let entry = entry(name, version);
        if self.done.insert(xxh3_64(entry.as_bytes()))
            && let Some(file) = &mut self.file
        {
            file.write_all(format!("{entry}\n").as_bytes())?;
        }
        Ok(())
    }
}

fn entry(name: &str, version: &str) -> String {
    format!("{version} {}", name.escape_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_known_the_next_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/b.journal");
        let mut journal = Journal::open(&path).expect("made");
        for name in ["oms-1.log", "x\ny"] {
            journal.note(name, "7").expect("noted");
            journal.note(name, "7").expect("noted once");
        }
        assert!(Journal::open(&path).is_err(), "one import at a time");
        drop(journal);
        // A kill in the middle of a line.
        let text = fs::read_to_string(&path).expect("there");
        fs::write(&path, format!("{text}8 oms-2.l")).expect("written");
        let mut journal = Journal::open(&path).expect("there");
        assert!(journal.holds("oms-1.log", "7") && journal.holds("x\ny", "7") && !journal.holds("oms-1.log", "8"));
        journal.note("oms-2.log", "8").expect("noted");
        drop(journal);
        assert_eq!(fs::read_to_string(&path).expect("there"), format!("{text}8 oms-2.log\n"));
    }

    #[test]
    fn another_file_is_not_written_to() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "precious\n").expect("written");
        assert!(Journal::open(file.path()).is_err());
        assert_eq!(fs::read_to_string(file.path()).expect("there"), "precious\n");
    }
}
