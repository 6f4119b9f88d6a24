//! A folder that keeps a log until a daemon takes it.
//!
//! One folder for each run of `exec`: what the log is (`meta.json`), its batches in order
//! (`00000000.ndjson` …), and how it ended (`finish.json`). A batch file appears whole, by a rename,
//! and goes away once it was acknowledged. Its key is that of the run and its number, so that a
//! batch that was stored, but whose answer was lost, is not stored again (the daemon remembers
//! keys for its `dedup_window`, a day unless configured otherwise).
//!
//! Whoever holds the lock on the folder's `lock` file owns it; the lock ends with the process, so a
//! run that was killed leaves a folder that anyone may deliver.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::client::{Client, ClientError, Patience};
use super::push::{About, Appended, FinishedAs, append_call, declare_call, finish_call};

/// The only version there is; a folder of another is left alone.
const VERSION: u32 = 1;
const BATCH_SUFFIX: &str = ".ndjson";
/// Folders that are being made begin with this; nobody delivers them.
const UNBORN: &str = ".new-";
/// Folders whose content no daemon will take; kept for people to look at.
const REFUSED: &str = "refused-";

/// What a folder holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Meta {
    version: u32,
    /// The daemon that it is meant for.
    pub(super) url: String,
    pub(super) app: String,
    pub(super) instance: String,
    pub(super) attempt: Option<u64>,
    pub(super) job: Option<String>,
    pub(super) labels: Vec<(String, String)>,
    /// What all batch keys begin with.
    key: String,
}

impl Meta {
    pub(super) fn new(url: &str, app: &str, instance: &str, about: &About, key: &str) -> Self {
        let (url, app, instance, key) = (url.to_owned(), app.to_owned(), instance.to_owned(), key.to_owned());
        let About { job, attempt, labels } = about.clone();
        Self { version: VERSION, url, app, instance, attempt, job, labels, key }
    }

    fn about(&self) -> About {
        About { job: self.job.clone(), attempt: self.attempt, labels: self.labels.clone() }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Finish {
    outcome: String,
}

/// A folder that this process owns.
#[derive(Debug)]
pub(super) struct Spool {
    pub(super) dir: PathBuf,
    meta: Meta,
    _lock: File,
}

/// `$XDG_STATE_HOME/logtier`, or under `~/.local/state`.
pub(super) fn state_root() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("logtier"))
}

/// `spool` under [`state_root`].
pub(super) fn default_root() -> anyhow::Result<PathBuf> {
    let root = state_root().context("neither XDG_STATE_HOME nor HOME is set; give --spool DIR")?;
    Ok(root.join("spool"))
}

/// How many bytes the folders under `root` hold.
pub(super) fn used_bytes(root: &Path) -> u64 {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    entries(root).flat_map(|spool| entries(&spool.path())).filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

impl Spool {
    /// Makes a folder called `name`, which nobody else may choose.
    pub(super) fn create(root: &Path, name: &str, meta: Meta) -> io::Result<Self> {
        let unborn = root.join(format!("{UNBORN}{name}"));
        // Logs may hold what is not for everyone on the machine.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&unborn)?;
        let lock = File::create(unborn.join("lock"))?;
        // The lock is taken before anyone can see the folder.
        lock.lock()?;
        fs::write(unborn.join("meta.json"), serde_json::to_vec(&meta)?)?;
        let dir = root.join(name);
        fs::rename(&unborn, &dir)?;
        Ok(Self { dir, meta, _lock: lock })
    }

    /// Takes over a folder; `None` if someone owns it, or it is not whole.
    fn take(dir: PathBuf) -> io::Result<Option<Self>> {
        let Ok(lock) = File::options().write(true).open(dir.join("lock")) else { return Ok(None) };
        if lock.try_lock().is_err() {
            return Ok(None);
        }
        let meta = match fs::read(dir.join("meta.json")) {
            Ok(json) => serde_json::from_slice::<Meta>(&json).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(meta.filter(|meta| meta.version == VERSION).map(|meta| Self { dir, meta, _lock: lock }))
    }

    fn batch_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:08}{BATCH_SUFFIX}"))
    }

    pub(super) fn write_batch(&self, number: u64, records: &[u8]) -> io::Result<()> {
        self.write_whole(&self.batch_path(number), records)
    }

    pub(super) fn write_finish(&self, outcome: FinishedAs) -> io::Result<()> {
        let finish = Finish { outcome: outcome.as_str().to_owned() };
        self.write_whole(&self.dir.join("finish.json"), &serde_json::to_vec(&finish)?)
    }

    fn write_whole(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let half = path.with_extension("tmp");
        let written = File::create(&half).and_then(|mut file| file.write_all(content));
        // What a full disk cut short must not stay.
        written.and_then(|()| fs::rename(&half, path)).inspect_err(|_| drop(fs::remove_file(&half)))
    }

    /// The numbers of the batches that wait, in order.
    pub(super) fn waiting(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(BATCH_SUFFIX)?.parse::<u64>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Declares the attempt with its job and labels, if there are any.
    pub(super) async fn declare(&self, client: &Client, patience: &mut Patience) -> Result<(), DeliveryError> {
        if self.meta.job.is_none() && self.meta.labels.is_empty() {
            return Ok(());
        }
        let call = declare_call(&self.meta.app, &self.meta.instance, &self.meta.about());
        client.json_patiently::<Value>(&call, patience).await?;
        Ok(())
    }

    /// Delivers one batch and removes it.
    pub(super) async fn deliver_batch(
        &self,
        number: u64,
        client: &Client,
        patience: &mut Patience,
    ) -> Result<(), DeliveryError> {
        let path = self.batch_path(number);
        let records = fs::read(&path)?;
        // A power cut may leave an empty file.
        if !records.is_empty() {
            let key = format!("{}-{number}", self.meta.key);
            let call = append_call(&self.meta.app, &self.meta.instance, self.meta.attempt, &key)
                .query_opt("job", self.meta.job.as_ref())
                .body("application/x-ndjson", Bytes::from(records));
            client.json_patiently::<Appended>(&call, patience).await?;
        }
        Ok(fs::remove_file(&path)?)
    }

    /// Says how the run ended, if that is known, and removes the folder.
    pub(super) async fn close(&self, client: &Client, patience: &mut Patience) -> Result<(), DeliveryError> {
        let finish = fs::read(self.dir.join("finish.json")).ok();
        if let Some(finish) = finish.and_then(|json| serde_json::from_slice::<Finish>(&json).ok()) {
            let outcome = clap::ValueEnum::from_str(&finish.outcome, false).ok();
            let call = finish_call(&self.meta.app, &self.meta.instance, &self.meta.about(), outcome, None);
            match client.json_patiently::<Value>(&call, patience).await {
                // Someone finished it otherwise; the lines are there, and that is what we owe.
                Err(error) if error.status() == Some(409) => {
                    eprintln!("logtier: finish {}/{}: {error}", self.meta.app, self.meta.instance);
                }
                finished => drop(finished?),
            }
        }
        Ok(self.remove()?)
    }

    fn remove(&self) -> io::Result<()> {
        // First what makes it a spool: a half-removed folder must not be delivered.
        fs::remove_file(self.dir.join("meta.json"))?;
        fs::remove_dir_all(&self.dir)
    }

    async fn deliver(&self, client: &Client, patience: &mut Patience) -> Result<u64, DeliveryError> {
        self.declare(client, patience).await?;
        let waiting = self.waiting()?;
        for &number in &waiting {
            self.deliver_batch(number, client, patience).await?;
        }
        self.close(client, patience).await?;
        Ok(waiting.len() as u64)
    }

    /// Puts a folder out of the way whose content no daemon will take.
    pub(super) fn set_aside(&self) -> io::Result<PathBuf> {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        let aside = self.dir.with_file_name(format!("{REFUSED}{name}"));
        fs::rename(&self.dir, &aside)?;
        Ok(aside)
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("use the spool: {0}")]
    Spool(#[from] io::Error),
}

impl DeliveryError {
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_transient())
    }

    /// Whether this very content is refused, today and tomorrow. A wrong token or address is not that.
    pub(super) fn is_refusal(&self) -> bool {
        let status = match self {
            Self::Client(error) => error.status(),
            Self::Spool(_) => None,
        };
        matches!(status, Some(400 | 409 | 410 | 413 | 415 | 422))
    }
}

/// Which folders a delivery takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those that were meant for this daemon: another's may belong to another cluster.
    ThisDaemons,
    /// All; the user says that this is the daemon for them.
    Everyones,
}

/// Delivers what earlier runs had to leave under `root`, oldest first.
///
/// Stops at the first failure that is not the content's own fault.
pub(super) async fn deliver_waiting(
    client: &Client,
    root: &Path,
    whose: Whose,
    patience: &mut Patience,
) -> anyhow::Result<()> {
    let mut names = match fs::read_dir(root) {
        Ok(entries) => entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("list {}", root.display())),
    };
    names.retain(|name| !name.starts_with(UNBORN) && !name.starts_with(REFUSED));
    // Names begin with a ULID, which begins with the time.
    names.sort_unstable();
    let mut elsewhere = 0;
    for name in names {
        let Some(spool) = Spool::take(root.join(&name)).with_context(|| format!("open spool {name}"))? else {
            continue;
        };
        let log = format!("{}/{}", spool.meta.app, spool.meta.instance);
        if whose == Whose::ThisDaemons && spool.meta.url != client.url() {
            elsewhere += 1;
            continue;
        }
        match spool.deliver(client, patience).await {
            Ok(_) => eprintln!("logtier: delivered the log of {log} that had to wait"),
            Err(error) if error.is_refusal() => {
                let aside = spool.set_aside().with_context(|| format!("set aside spool {name}"))?;
                eprintln!("logtier: the daemon refuses the log of {log} ({error}); it is kept in {}", aside.display());
            }
            Err(error) => return Err(error).with_context(|| format!("deliver the log of {log} from {name}")),
        }
    }
    if elsewhere > 0 {
        eprintln!(
            "logtier: {} in {} for a daemon at another --url; `logtier push --spool` delivers all to this one",
            if elsewhere == 1 { "a log waits".to_owned() } else { format!("{elsewhere} logs wait") },
            root.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{Answer, Server};
    use super::*;
    use crate::clock::Clock;

    fn spool(root: &Path, url: &str, name: &str) -> Spool {
        let about = About { job: Some("j".into()), attempt: None, labels: Vec::new() };
        let spool = Spool::create(root, name, Meta::new(url, "default", name, &about, &format!("key-{name}")));
        let spool = spool.expect("created");
        spool.write_batch(0, b"{\"message\":\"a\"}\n").expect("written");
        spool.write_batch(1, b"{\"message\":\"b\"}\n").expect("written");
        spool.write_finish(FinishedAs::Failed).expect("written");
        spool
    }

    fn client(url: &str) -> Client {
        Client::new(url, None, Clock::default()).expect("an address")
    }

    #[tokio::test]
    async fn a_delivery_that_broke_goes_on_with_the_same_keys() {
        let root = tempfile::tempdir().expect("a folder");
        let ok = || Answer::json(200, &serde_json::json!({}));
        let away = Answer::problem(503, "away");
        let server = Server::start([ok(), ok(), away, ok(), ok(), ok()]).await;
        drop(spool(root.path(), &server.url, "s1"));
        let client = client(&server.url);
        let mut patience = Patience::quiet(Duration::ZERO);
        deliver_waiting(&client, root.path(), Whose::ThisDaemons, &mut patience).await.expect_err("away");
        deliver_waiting(&client, root.path(), Whose::ThisDaemons, &mut Patience::quiet(Duration::ZERO))
            .await
            .expect("back");
        let keys: Vec<_> = server.seen().iter().map(|seen| seen.header("idempotency-key").to_owned()).collect();
        assert_eq!(keys, ["", "key-s1-0", "key-s1-1", "", "key-s1-1", ""]);
        assert_eq!(server.seen()[5].text(), r#"{"job":"j","outcome":"failed"}"#);
        assert_eq!(fs::read_dir(root.path()).expect("there").count(), 0);
    }

    #[tokio::test]
    async fn what_has_an_owner_or_another_daemon_is_left_alone() {
        let root = tempfile::tempdir().expect("a folder");
        let server = Server::with(|_| Answer::json(200, &serde_json::json!({}))).await;
        let _owned = spool(root.path(), &server.url, "s1");
        drop(spool(root.path(), "http://elsewhere:1", "s2"));
        deliver_waiting(&client(&server.url), root.path(), Whose::ThisDaemons, &mut Patience::quiet(Duration::ZERO))
            .await
            .expect("nothing");
        assert!(server.seen().is_empty());
        assert_eq!(fs::read_dir(root.path()).expect("there").count(), 2);
        assert!(used_bytes(root.path()) > 100);
        deliver_waiting(&client(&server.url), root.path(), Whose::Everyones, &mut Patience::quiet(Duration::ZERO))
            .await
            .expect("delivered");
        assert_eq!(fs::read_dir(root.path()).expect("there").count(), 1, "the one that has an owner stays");
    }

    #[tokio::test]
    async fn what_is_refused_does_not_block_the_others() {
        let root = tempfile::tempdir().expect("a folder");
        let server = Server::with(|seen| match seen.target.contains("s1/records") {
            true => Answer::problem(410, "expired"),
            false => Answer::json(200, &serde_json::json!({})),
        })
        .await;
        drop(spool(root.path(), &server.url, "s1"));
        drop(spool(root.path(), &server.url, "s2"));
        deliver_waiting(&client(&server.url), root.path(), Whose::ThisDaemons, &mut Patience::quiet(Duration::ZERO))
            .await
            .expect("done");
        let left: Vec<_> = fs::read_dir(root.path()).expect("there").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["refused-s1"]);
    }
}
