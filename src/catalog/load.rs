//! What purging goes by: how busy a server is, how far its replicas are behind, and whether someone paused it.

use std::time::Duration;

use sqlx::Row;

use super::{Catalog, Lease, sql_rules};
use crate::db::{Db, Error, Result};
use crate::model::Millis;

/// Where the word of who paused purging stands in the table `meta`; empty after it went on.
const PURGE_PAUSED: &str = "purge_paused";

impl Catalog {
    /// Row locks that are being waited for on a server; `None` where it cannot tell: SQLite, TiDB.
    pub async fn lock_waits(&self, db: &Db) -> Result<Option<u64>> {
        let Some(statement) = sql_rules::lock_waits(db.engine()) else { return Ok(None) };
        let Some(row) = sqlx::query(statement).fetch_optional(db.pool()).await? else { return Ok(None) };
        let waits: String = row.try_get(1)?;
        waits.parse().map(Some).map_err(|_| Error::Row(format!("lock waits \"{waits}\"")))
    }

    /// How far a replica is behind, by the end of a lease that its holder renews again and again.
    pub async fn replica_lag(&self, db: &Db, replica: &Db, lease: &Lease) -> Result<Duration> {
        let end = async |db: &Db| {
            let leases = self.leases(db).await?;
            Ok::<_, Error>(
                leases.iter().find(|row| row.task == lease.task()).map_or(Millis::ZERO, |row| row.expires_at),
            )
        };
        // The replica first: what it has was on its server before.
        let theirs = end(replica).await?;
        Ok(end(db).await?.since(theirs))
    }

    /// Why someone paused purging on a server, if they did.
    pub async fn purge_paused(&self, db: &Db) -> Result<Option<String>> {
        Ok(db.meta(PURGE_PAUSED).await?.filter(|why| !why.is_empty()))
    }

    /// Pauses purging on a server, or lets it go on.
    pub async fn pause_purge(&self, db: &Db, why: Option<&str>) -> Result<()> {
        db.set_meta(PURGE_PAUSED, why.unwrap_or_default()).await
    }
}
