//! The statements of the baselines.

use std::sync::Arc;

use sqlx::AssertSqlSafe;

use crate::db::{Db, Engine, Result};

/// Where the server says that its process number stands.
pub(super) async fn pid_file(db: &Db) -> Option<String> {
    let query = sqlx::query_scalar("/* bench::pid_file */ SELECT CAST(@@pid_file AS CHAR)");
    query.fetch_one(db.pool()).await.ok()
}

/// Bytes of the catalog's tables and their indexes, as the server counts them; nothing on SQLite.
pub(super) async fn catalog_bytes(db: &Db) -> Option<i64> {
    if db.engine() == Engine::Sqlite {
        return None;
    }
    let query = sqlx::query_scalar(
        "/* bench::catalog_bytes */ SELECT CAST(SUM(data_length + index_length) AS SIGNED) FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND (table_name LIKE 'attempt%' OR table_name LIKE 'part%')",
    );
    query.fetch_one(db.pool()).await.ok()
}

/// The table that people make for logs when they make one: a row a line.
pub(super) async fn create_lines(db: &Db) -> Result<()> {
    let number = if db.engine() == Engine::Sqlite {
        "INTEGER PRIMARY KEY AUTOINCREMENT"
    } else {
        "BIGINT AUTO_INCREMENT PRIMARY KEY"
    };
    let statement = format!(
        "/* bench::create_lines */ CREATE TABLE IF NOT EXISTS bench_line (id {number}, \
         instance VARBINARY(255) NOT NULL, line TEXT NOT NULL)"
    );
    sqlx::query(AssertSqlSafe(statement)).execute(db.pool()).await?;
    let index = "/* bench::create_lines */ CREATE INDEX bench_line_instance ON bench_line (instance, id)";
    sqlx::query(index).execute(db.pool()).await?;
    Ok(())
}

/// One INSERT for each line, one commit for all of them.
pub(super) async fn insert_lines(db: &Arc<Db>, lines: Arc<Vec<(String, String)>>) -> Result<()> {
    db.run_tx("bench_lines", move |tx| {
        let lines = Arc::clone(&lines);
        Box::pin(async move {
            for (instance, line) in lines.iter() {
                let insert =
                    sqlx::query("/* bench::insert_lines */ INSERT INTO bench_line (instance, line) VALUES (?, ?)");
                insert.bind(instance.as_bytes()).bind(line.as_str()).execute(&mut *tx).await?;
            }
            Ok(())
        })
    })
    .await
}

pub(super) async fn drop_lines(db: &Db) -> Result<()> {
    sqlx::query("/* bench::drop_lines */ DROP TABLE IF EXISTS bench_line").execute(db.pool()).await?;
    Ok(())
}
