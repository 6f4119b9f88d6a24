//! PowerJob's table of files in MySQL or MariaDB (its `MySqlSeriesDfsService`).
//!
//! The table has no index but its primary key, so it is walked twice by that: once for the names, to know which of
//! several copies of a log counts, and once to import. PowerJob replaces a file by deleting and inserting it, on two
//! connections: copies happen, and a file may vanish while we look.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::powerjob::{self, Facts, MAX_SAMPLES, Sample};
use super::report::Skip;
use super::{Found, Lines, Log, PIECE_BYTES, Source, sql};
use crate::protocol::powerjob::{InstanceFacts, InstanceId, LOG_BUCKET, Status, attempt_of, is_placeholder};

/// Rows of a page: few enough to list in one statement, many enough that the page's last log hardly matters.
const PAGE_ROWS: i64 = 1_000;
/// A longer file is no placeholder.
const SMALL_BYTES: i64 = 256;
/// 64 bytes of memory a log in the first walk, half a GiB in all.
const MAX_LOGS: usize = 8 << 20;

/// A table's name, quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table(String);

impl FromStr for Table {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(format!("\"{name}\" is no name of a table"));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

/// The table of files, and what was learnt of it.
#[derive(Debug)]
pub(super) struct FileTable {
    pool: MySqlPool,
    files: Table,
    instances: Option<InstanceTable>,
    settings: powerjob::Settings,
    newest: HashMap<InstanceId, i64>,
    placeholders: HashSet<i64>,
    after: i64,
    pub(super) rows: u64,
    /// Some logs, to look at before the rest.
    pub(super) samples: Vec<Sample<i64>>,
}

struct FileRow {
    id: i64,
    bucket: String,
    name: String,
    length: i64,
}

/// `jdbc:mysql://…?…`, as it stands in PowerJob's configuration, is understood; its parameters are Java's.
pub(super) fn options(url: &str, password: Option<&str>) -> anyhow::Result<MySqlConnectOptions> {
    let url = match url.strip_prefix("jdbc:") {
        Some(jdbc) => jdbc.split('?').next().unwrap_or_default(),
        None => url,
    };
    // The parser's own error would repeat the password.
    let mut options = MySqlConnectOptions::from_str(url)
        .map_err(|_| anyhow::anyhow!("the source is no URL such as mysql://user@host:3306/powerjob"))?;
    ensure!(options.get_database().is_some(), "name the database in the URL: mysql://user@host:3306/powerjob");
    if let Some(password) = password {
        options = options.password(password);
    }
    Ok(options.statement_cache_capacity(32))
}

/// Connects for reading, which is all that such a connection can do.
pub(super) async fn connect(options: MySqlConnectOptions, connections: u32) -> anyhow::Result<MySqlPool> {
    let pool = MySqlPoolOptions::new()
        .max_connections(connections)
        .after_connect(|connection, _| Box::pin(async move { connection.execute(sql::READ_ONLY).await.map(drop) }));
    pool.connect_with(options).await.context("connect to PowerJob's database")
}

async fn has_table(pool: &MySqlPool, table: &Table) -> anyhow::Result<bool> {
    let count = sqlx::query_scalar::<_, i64>(sql::HAS_TABLE).bind(&table.0).fetch_one(pool).await;
    Ok(count.with_context(|| format!("look for the table {table}"))? > 0)
}

/// What PowerJob knows of its instances.
#[derive(Debug)]
pub(super) struct InstanceTable {
    pool: MySqlPool,
    table: Table,
}

impl InstanceTable {
    /// `None`, which is said, where there is no such table.
    pub(super) async fn open(pool: MySqlPool, table: Table) -> anyhow::Result<Option<Self>> {
        if has_table(&pool, &table).await? {
            return Ok(Some(Self { pool, table }));
        }
        eprintln!(
            "logtier: there is no table {table} here: logs get no job, outcome or attempt; name it with --instance-table"
        );
        Ok(None)
    }

    /// Of at most a page of instances.
    pub(super) async fn facts(&self, ids: &[InstanceId]) -> anyhow::Result<HashMap<InstanceId, Facts>> {
        let mut facts = HashMap::new();
        if ids.is_empty() {
            return Ok(facts);
        }
        let mut query = sqlx::query(AssertSqlSafe(sql::instances(&self.table, ids.len()))).persistent(false);
        for id in ids {
            query = query.bind(id.get());
        }
        for row in query.fetch_all(&self.pool).await.context("read PowerJob's instances")? {
            let number = |name: &str| row.try_get::<Option<i64>, _>(name);
            let Some(id) = number("instance_id")?.and_then(|id| InstanceId::new(id).ok()) else { continue };
            let status = row.try_get::<Option<i32>, _>("status")?;
            let known = Facts {
                ids: InstanceFacts {
                    app_id: number("app_id")?,
                    job_id: number("job_id")?,
                    wf_instance_id: number("wf_instance_id")?,
                },
                status: status.and_then(|code| Status::from_code(code.into())),
                attempt: attempt_of(number("running_times")?.unwrap_or(1)),
                finished_at: number("finished_time")?,
            };
            facts.insert(id, known);
        }
        Ok(facts)
    }
}

impl FileTable {
    pub(super) async fn open(
        pool: MySqlPool,
        files: Table,
        instances: Option<InstanceTable>,
        settings: powerjob::Settings,
    ) -> anyhow::Result<Self> {
        ensure!(has_table(&pool, &files).await?, "there is no table {files} in this database; name it with --table");
        let (newest, placeholders) = (HashMap::new(), HashSet::new());
        Ok(Self { pool, files, instances, settings, newest, placeholders, after: 0, rows: 0, samples: Vec::new() })
    }

    /// The first walk: which copy of each log counts, and how much there is.
    pub(super) async fn scan(&mut self) -> anyhow::Result<()> {
        let mut after = 0;
        loop {
            let rows = self.rows_after(after).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.id;
            let small: Vec<i64> = rows.iter().filter(|row| row.length <= SMALL_BYTES).map(|row| row.id).collect();
            self.note_placeholders(&small).await?;
            for row in &rows {
                self.rows += 1;
                if let Some(id) = log_of(row).filter(|_| !self.placeholders.contains(&row.id)) {
                    self.newest.insert(id, row.id);
                    if self.samples.len() < MAX_SAMPLES {
                        self.samples.push((row.id, id));
                    }
                }
            }
            if self.newest.len() > MAX_LOGS {
                bail!("there are more than {MAX_LOGS} logs, too many to find their copies; thin out the table first");
            }
        }
    }

    async fn rows_after(&self, after: i64) -> anyhow::Result<Vec<FileRow>> {
        let query = sqlx::query(AssertSqlSafe(sql::page(&self.files))).bind(after).bind(PAGE_ROWS);
        let rows = query.fetch_all(&self.pool).await.context("list PowerJob's files")?;
        let row = |row: &sqlx::mysql::MySqlRow| -> Result<FileRow, sqlx::Error> {
            let (id, length) = (row.try_get("id")?, row.try_get("length")?);
            Ok(FileRow { id, bucket: row.try_get("bucket")?, name: row.try_get("name")?, length })
        };
        rows.iter().map(|found| row(found).context("read a row of PowerJob's files")).collect()
    }

    async fn note_placeholders(&mut self, ids: &[i64]) -> anyhow::Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut query = sqlx::query(AssertSqlSafe(sql::beginnings(&self.files, ids.len()))).persistent(false);
        // One byte more tells a long file whose length is wrong.
        query = query.bind(SMALL_BYTES + 1);
        for id in ids {
            query = query.bind(id);
        }
        for row in query.fetch_all(&self.pool).await.context("read PowerJob's small files")? {
            if is_placeholder(row.try_get::<&[u8], _>("data")?) {
                self.placeholders.insert(row.try_get("id")?);
            }
        }
        Ok(())
    }

    fn judge(&self, row: &FileRow) -> Result<InstanceId, Skip> {
        if row.bucket != LOG_BUCKET {
            return Err(Skip::OtherBucket);
        }
        let id = InstanceId::of_file(&row.name).ok_or(Skip::NotALog)?;
        if self.placeholders.contains(&row.id) {
            return Err(Skip::Placeholder);
        }
        // A copy that came after the first walk is for the next import.
        match self.newest.get(&id) {
            Some(newest) if *newest == row.id => Ok(id),
            Some(newest) if *newest > row.id => Err(Skip::OlderCopy),
            _ => Err(Skip::Later),
        }
    }
}

fn log_of(row: &FileRow) -> Option<InstanceId> {
    (row.bucket == LOG_BUCKET).then(|| InstanceId::of_file(&row.name))?
}

impl Source for FileTable {
    type Key = i64;

    async fn next_page(&mut self) -> anyhow::Result<Option<Vec<Found<i64>>>> {
        let rows = self.rows_after(self.after).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        self.after = last.id;
        let judged: Vec<_> = rows.iter().map(|row| (row, self.judge(row))).collect();
        let ids: Vec<InstanceId> = judged.iter().filter_map(|(_, verdict)| verdict.ok()).collect();
        let facts = powerjob::facts_of(self.instances.as_ref(), &ids).await?;
        let found = judged.into_iter().map(|(row, verdict)| match verdict {
            Ok(id) => Found::Log(Log {
                name: row.name.clone(),
                version: row.id.to_string(),
                bytes: row.length.unsigned_abs(),
                target: Facts::target(facts.get(&id).copied(), id),
                key: row.id,
            }),
            Err(why) => Found::Skipped { name: format!("{} (id {})", row.name, row.id), why },
        });
        Ok(Some(found.collect()))
    }

    async fn read(&self, id: &i64, offset: u64) -> anyhow::Result<Option<Bytes>> {
        let query = sqlx::query(AssertSqlSafe(sql::piece(&self.files)));
        // SQL counts from 1.
        let query = query.bind(offset as i64 + 1).bind(PIECE_BYTES as i64).bind(id);
        let row = query.fetch_optional(&self.pool).await.context("read a file of PowerJob's")?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Bytes::copy_from_slice(row.try_get::<&[u8], _>("data")?)))
    }

    fn lines(&self, log: &Log<i64>) -> Lines {
        self.settings.lines(&log.target)
    }
}
