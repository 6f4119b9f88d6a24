//! The end of a seed: faults are over, everybody gets on. What must be true then is stricter:
//! all is there, nothing is left over, and when the time of all has come, all goes.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures::TryStreamExt;
use logtier::cold::KeyKind;
use sqlx::AssertSqlSafe;

use super::driver::{Driver, Want};
use super::model::{Name, Violation};
use super::world::Stop;
use crate::harness::check::check_server;

const HOUR: i64 = 3_600_000;

/// Ends what is held, and looks at everything.
pub async fn settle(driver: &mut Driver) -> Result<(), Violation> {
    driver.note("settle".to_owned());
    driver.fate.store_faults.store(0, Ordering::SeqCst);
    driver.fate.database_faults.store(0, Ordering::SeqCst);
    while !driver.tasks.is_empty() {
        driver.go_on(0, Stop::Never).await?;
    }
    for at in 0..driver.daemons.len() {
        driver.start(at).await;
        driver.set_skew(at, 0);
    }
    let names = driver.model.names();
    read_all(driver, &names).await?;
    for id in driver.model.repeatable(driver.now()) {
        driver.append(0, &[id], Stop::Never).await?;
    }
    read_all(driver, &names).await?;
    // What failed is set aside for a day at most; leases of the dead end; uploads are given up.
    for hours in [1, 3, 25] {
        driver.advance(hours * HOUR, &[]).await?;
        for at in 0..driver.daemons.len() {
            driver.run(at, Stop::Never).await?;
        }
        read_all(driver, &names).await?;
    }
    tables_and_bucket_fit(driver).await
}

/// Reads everything on every daemon.
async fn read_all(driver: &mut Driver, names: &[Name]) -> Result<(), Violation> {
    for name in names {
        for at in 0..driver.daemons.len() {
            driver.read(at, name, Want::All, Stop::Never).await?;
        }
    }
    Ok(())
}

/// Every retention is over: nothing is left but what is held.
pub async fn end_of_days(driver: &mut Driver, all_ages: i64) -> Result<(), Violation> {
    driver.note("the end of days".to_owned());
    let kept: Vec<Name> = driver.model.names().into_iter().filter(|name| driver.model.is_kept_for_ever(name)).collect();
    // Inferred, archived, purged, expired, doomed, deleted, forgotten.
    for _ in 0..6 {
        driver.advance(all_ages, &[]).await?;
        for at in 0..driver.daemons.len() {
            driver.run(at, Stop::Never).await?;
        }
    }
    for name in &kept {
        driver.read(0, name, Want::All, Stop::Never).await?;
    }
    tables_and_bucket_fit(driver).await?;
    let db = driver.daemon(0).catalog.cluster.servers()[0].clone();
    for shard in db.shards() {
        let left = format!(
            "SELECT id, CAST(state AS SIGNED), next_line, archived_line, purged_line, COALESCE(gone_at, 0), due_at \
             FROM attempt_{shard} WHERE held = 0"
        );
        let left = sqlx::query_as::<_, (i64, i64, i64, i64, i64, i64, i64)>(AssertSqlSafe(left));
        let left = left.fetch_all(db.pool()).await.expect("attempts");
        if !left.is_empty() {
            let failures =
                driver.daemon(0).archiver.runs(1).await.map(|runs| runs.first().map(|run| run.failures.clone()));
            return Err(format!(
                "never forgotten (id, state, next, archived, purged, gone, due): {left:?}; {failures:?}"
            ));
        }
    }
    Ok(())
}

/// The catalog's rows fit together, and every object of the bucket has its row and the other way round.
async fn tables_and_bucket_fit(driver: &Driver) -> Result<(), Violation> {
    let daemon = driver.daemon(0);
    let db = &daemon.catalog.cluster.servers()[0];
    check_server(db).await;
    let rows: Vec<(Vec<u8>, i32)> =
        sqlx::query_as("SELECT ulid, CAST(state AS SIGNED) FROM segment").fetch_all(db.pool()).await.expect("segments");
    let ulids = |wanted: &[i32]| -> BTreeSet<Vec<u8>> {
        rows.iter().filter(|(_, state)| wanted.contains(state)).map(|(ulid, _)| ulid.clone()).collect()
    };
    let listed: Vec<_> = daemon.store.list("v1/").try_collect().await.expect("a listing");
    let found: BTreeSet<Vec<u8>> = listed
        .iter()
        .filter_map(|object| match object.key.kind() {
            KeyKind::Segment(name) => Some(name.ulid.to_bytes().to_vec()),
            _ => None,
        })
        .collect();
    let missing: Vec<_> = ulids(&[1]).difference(&found).cloned().collect();
    if !missing.is_empty() {
        return Err(format!("live segments without an object: {missing:?}"));
    }
    let strangers: Vec<_> = found.difference(&ulids(&[0, 1, 2])).cloned().collect();
    if !strangers.is_empty() {
        return Err(format!("objects that no row knows of: {strangers:?}"));
    }
    Ok(())
}
