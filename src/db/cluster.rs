//! Which shard an instance belongs to, and which server holds it.

use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::{Db, Result};
use crate::model::{App, Instance};

/// One set of tables: `attempt_NN`, `chunk_NN`, `batch_NN`, `part_NN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl Shard {
    pub fn new(number: u16) -> Self {
        Self(number)
    }

    pub fn number(self) -> u16 {
        self.0
    }

    /// `shards` is a power of two. The hash is part of the stored format: changing it loses rows.
    pub fn of(app: &App, instance: &Instance, shards: usize) -> Self {
        let mut hash = Xxh3::new();
        hash.update(app.as_bytes());
        // 0xFF is in no UTF-8 text, so ("a", "bc") and ("ab", "c") differ.
        hash.update(&[0xFF]);
        hash.update(instance.as_bytes());
        Self((hash.digest() % shards as u64) as u16)
    }

    /// The name of one of the shard's tables.
    pub fn table(self, name: &str) -> String {
        format!("{name}_{self}")
    }
}

/// Two digits at least, as in table names.
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

/// Where an instance's rows live.
#[derive(Clone)]
pub struct Home {
    pub db: Arc<Db>,
    pub shard: Shard,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server {} shard {}", self.db.number(), self.shard)
    }
}

/// All servers of the hot tier. Every shard is on exactly one.
#[derive(Clone)]
pub struct Cluster {
    servers: Arc<[Arc<Db>]>,
    /// The server of each shard, by number.
    by_shard: Arc<[usize]>,
}

impl Cluster {
    /// The configuration has checked that the servers' shards are 0..n, each once.
    pub fn new(servers: Vec<Arc<Db>>) -> Self {
        let shards = servers.iter().map(|db| db.shards().len()).sum();
        let mut by_shard = vec![0; shards];
        for (index, db) in servers.iter().enumerate() {
            for shard in db.shards() {
                by_shard[usize::from(shard.number())] = index;
            }
        }
        Self { servers: servers.into(), by_shard: by_shard.into() }
    }

    pub fn servers(&self) -> &[Arc<Db>] {
        &self.servers
    }

    pub fn shard_count(&self) -> usize {
        self.by_shard.len()
    }

    pub fn home(&self, app: &App, instance: &Instance) -> Home {
        let shard = Shard::of(app, instance, self.by_shard.len());
        Home { db: Arc::clone(&self.servers[self.by_shard[usize::from(shard.number())]]), shard }
    }

    /// Whether every server answers.
    pub async fn ping(&self) -> Result<()> {
        futures::future::try_join_all(self.servers.iter().map(|db| db.ping())).await.map(drop)
    }

    pub async fn close(&self) {
        futures::future::join_all(self.servers.iter().map(|db| db.close())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_of_a_name_never_changes() {
        let shard = |app: &str, instance: &str| {
            Shard::of(&app.parse().expect("a name"), &instance.parse().expect("a name"), 16).number()
        };
        assert_eq!([shard("default", "1"), shard("a", "bc"), shard("ab", "c")], [7, 7, 13]);
        assert_eq!(Shard::new(3).table("chunk"), "chunk_03");
    }
}
