//! What the integration tests stand on: a database and an object store for each test, both its own.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `LOGTIER_TEST_MYSQL_URL` | any server that speaks MySQL's protocol, `mysql://user:password@host:port/`; without it the tests on MySQL are skipped and noted |
//! | `LOGTIER_TEST_S3_ENDPOINT` | any S3, else one runs in this process; with `_BUCKET`, `_ACCESS_KEY_ID`, `_SECRET_ACCESS_KEY`, `_REGION`, `_VIRTUAL_HOSTED_STYLE` |
//! | `LOGTIER_TEST_SKIPS` | a file to which each skip is appended; `make test` shows it at the end |

// Not every test file uses every part of it.
#![allow(dead_code)]

pub mod check;
pub mod daemon;
pub mod logs;
pub mod mysql;
pub mod powerjob;
pub mod process;
pub mod relay;
pub mod s3;
pub mod scenes;

use std::io::Write;

use mysql::TestDatabase;
use s3::{S3Place, S3Server};
use tempfile::TempDir;

/// Where the hot tier lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    MySql,
}

/// Where the cold tier lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColdStore {
    Folder,
    S3,
}

/// The two pairs that every end-to-end test runs on: what a newcomer starts with, and what a cluster runs on.
pub const PAIRS: [(Engine, ColdStore); 2] = [(Engine::Sqlite, ColdStore::Folder), (Engine::MySql, ColdStore::S3)];

/// Both tiers of one test, empty at the start and removed at its end.
pub struct Tiers {
    pub engine: Engine,
    pub store: ColdStore,
    database: Option<TestDatabase>,
    s3: Option<(S3Place, Option<S3Server>)>,
    folder: TempDir,
}

impl Tiers {
    /// `None`, noted as skipped, where the engine is not to be had.
    pub fn new(engine: Engine, store: ColdStore) -> Option<Tiers> {
        let database = match engine {
            Engine::Sqlite => None,
            Engine::MySql => Some(TestDatabase::create()?),
        };
        let s3 = match store {
            ColdStore::Folder => None,
            ColdStore::S3 => Some(s3::place_for_a_test()),
        };
        let folder = tempfile::tempdir().expect("make a temporary folder");
        Some(Tiers { engine, store, database, s3, folder })
    }

    /// A folder of this test: the data directory of a daemon.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The S3 server inside this process, to count its requests and to make it fail.
    pub fn s3_server(&self) -> Option<&S3Server> {
        self.s3.as_ref()?.1.as_ref()
    }

    /// The settings that point a daemon at these tiers, as environment variables.
    pub fn env(&self) -> Vec<(String, String)> {
        let mut env = vec![("LOGTIER_DATA_DIR".to_owned(), self.folder().display().to_string())];
        if let Some(database) = &self.database {
            env.push(("LOGTIER_HOT__URL".to_owned(), database.url().to_owned()));
        }
        if let Some((place, _)) = &self.s3 {
            env.extend(place.settings().map(|(name, value)| (format!("LOGTIER_COLD__{name}"), value)));
            if self.engine == Engine::Sqlite {
                // One URL without the other is taken for a mistake.
                env.push(("LOGTIER_HOT__URL".to_owned(), format!("sqlite://{}/hot.db", self.folder().display())));
            }
        } else if self.engine == Engine::MySql {
            // A database that others could share with a folder that they might not: has to be said.
            env.push(("LOGTIER_COLD__URL".to_owned(), format!("file://{}/cold", self.folder().display())));
            env.push(("LOGTIER_COLD__SHARED".to_owned(), "true".to_owned()));
        }
        env
    }
}

/// Runs `test` on both pairs of `PAIRS`, those that are to be had.
pub fn on_each_pair(test: impl Fn(&Tiers)) {
    for (engine, store) in PAIRS {
        if let Some(tiers) = Tiers::new(engine, store) {
            eprintln!("on {engine:?} and {store:?}");
            test(&tiers);
        }
    }
}

/// Says that the running test leaves something out, here and at the end of `make test`.
pub fn note_skip(what: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {what}\n", thread.name().unwrap_or("a test"));
    eprint!("skipped {line}");
    if let Some(path) = std::env::var_os("LOGTIER_TEST_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("note what was skipped");
    }
}

/// A name that no other test, process or checkout has.
pub fn unique_name(prefix: &str) -> String {
    format!("{prefix}{:016x}", rand::random::<u64>())
}

/// Runs a future to its end on a thread and runtime of its own: for set-up and `Drop`, inside any other runtime.
pub fn block_on_elsewhere<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("build a runtime").block_on(future)
        });
        thread.join().expect("the helping thread does not panic")
    })
}
