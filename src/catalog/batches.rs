//! Batch keys: what became of a batch, so that sending it again stores nothing.

use std::collections::HashMap;

use super::{column, sql};
use crate::db::{Connection, Home, Result};
use crate::model::{AttemptId, Millis};

/// Names a batch (hash over app, instance, attempt, source and the client's key) and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchKey {
    pub hash: [u8; 16],
    pub content: i64,
}

/// What a key was first used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    pub key: BatchKey,
    pub attempt: AttemptId,
    pub first_line: u64,
    pub lines: u32,
}

/// Which of these keys were used before, by hash.
pub async fn find(home: &Home, keys: &[[u8; 16]]) -> Result<HashMap<[u8; 16], Remembered>> {
    let mut found = HashMap::new();
    for some in super::in_powers_of_two(keys) {
        let statement = sql::find_batches(home.shard, some.len());
        let mut query = sqlx::query(sqlx::AssertSqlSafe(statement));
        for key in some {
            query = query.bind(key.to_vec());
        }
        for row in query.fetch_all(home.db.pool()).await? {
            let hash: [u8; 16] = super::bytes(&row, "key_hash")?;
            let remembered = Remembered {
                key: BatchKey { hash, content: column(&row, "content_hash")? },
                attempt: AttemptId::stored(column(&row, "attempt_id")?),
                first_line: super::count(&row, "first_line")?,
                lines: column::<i32>(&row, "line_count")?.unsigned_abs(),
            };
            found.insert(hash, remembered);
        }
    }
    Ok(found)
}

/// Remembers keys; a key that is there already fails the transaction with `Duplicate`.
pub async fn insert(tx: &mut Connection, home: &Home, batches: &[Remembered], now: Millis) -> Result<()> {
    for some in super::in_powers_of_two(batches) {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql::insert_batches(home.shard, some.len())));
        for batch in some {
            query = query.bind(batch.key.hash.to_vec()).bind(batch.key.content).bind(batch.attempt.get());
            query = query.bind(batch.first_line as i64).bind(batch.lines as i32).bind(now.get());
        }
        query.execute(&mut *tx).await?;
    }
    Ok(())
}

/// Forgets keys older than `before`, at most `limit` a call; answers how many went.
pub async fn forget(home: &Home, before: Millis, limit: u32) -> Result<u64> {
    let oldest = sqlx::query(sqlx::AssertSqlSafe(sql::old_batches(home.shard)));
    let rows = oldest.bind(before.get()).bind(i64::from(limit)).fetch_all(home.db.pool()).await?;
    let keys = rows.iter().map(|row| super::bytes(row, "key_hash")).collect::<Result<Vec<[u8; 16]>>>()?;
    let mut gone = 0;
    for some in super::in_powers_of_two(&keys) {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql::delete_batches(home.shard, some.len())));
        for key in some {
            query = query.bind(key.to_vec());
        }
        gone += query.bind(before.get()).execute(home.db.pool()).await?.rows_affected();
    }
    Ok(gone)
}
