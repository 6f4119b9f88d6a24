//! `logtier import powerjob`: from wherever PowerJob stores its logs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono_tz::Tz;
use clap::Args;
use sqlx::mysql::MySqlConnectOptions;
use url::Url;

use super::gridfs::Dump;
use super::mysql::{self, FileTable, InstanceTable, Table};
use super::objects::{self, Objects, StoreArgs};
use super::{Common, End, Importer, Lines, Source, Target, conclude};
use crate::cli::{Exit, Session, output};
use crate::model::{AttemptNo, Millis, Timestamp};
use crate::protocol::powerjob::{InstanceFacts, InstanceId, Line, Parser, Status, parse_zone};

#[derive(Debug, Args)]
#[command(after_help = "\
The source is one of
  mysql://user@host:3306/powerjob   its table of files; the jdbc: URL of PowerJob's configuration will do
  s3://bucket/log/                  its bucket in MinIO (with --endpoint) or another S3; oss:// for Alibaba's
  FOLDER                            a mongodump of its GridFS
It is never written to.")]
pub(in crate::cli) struct PowerjobArgs {
    /// Where the logs are; --url may name it, too, and the daemon is then that of $LOGTIER_URL
    #[arg(long, value_name = "SOURCE")]
    pub(super) from: Option<String>,
    /// PowerJob's table of files
    #[arg(long, value_name = "NAME", default_value = "powerjob_files")]
    table: Table,
    /// PowerJob's table of instances, which tells job, outcome and attempt
    #[arg(long, value_name = "NAME", default_value = "instance_info")]
    instance_table: Table,
    /// The database with that table, where the logs are elsewhere
    #[arg(long, value_name = "URL")]
    instances: Option<String>,
    /// File with the password of the database; safer than in its URL
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// The time zone of the PowerJob server that wrote the files
    #[arg(long, value_name = "ZONE", default_value = "Asia/Shanghai", value_parser = parse_zone)]
    timezone: Tz,
    /// Import even where all lines look as if that time zone were wrong
    #[arg(long)]
    any_timezone: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// How PowerJob's files are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) zone: Tz,
}

impl Settings {
    pub(super) fn lines(self, target: &Target) -> Lines {
        Lines::PowerJob(Parser::new(self.zone, target.started_at.timestamp()))
    }
}

/// How many logs are looked at before an import, to see whether the time zone is right.
pub(super) const MAX_SAMPLES: usize = 8;
/// Fewer logs than this tell nothing.
const MIN_SAMPLES: usize = 3;

/// How a source finds a log, and whose log it is.
pub(super) type Sample<K> = (K, InstanceId);

/// Refuses a time zone in which every log begins about as far from its instance's making as one zone is from another.
pub(super) async fn check_zone<S: Source>(source: &S, samples: &[Sample<S::Key>], zone: Tz) -> anyhow::Result<()> {
    let mut minutes = Vec::new();
    for (key, id) in samples {
        let Some(piece) = source.read(key, 0).await? else { continue };
        if let Some(first) = first_time(&piece, zone) {
            minutes.push((first.nanos() / 1_000_000 - id.created_at().get()) / 60_000);
        }
    }
    if let Some(off) = off_by(&mut minutes) {
        let span = output::span(Duration::from_secs(off.unsigned_abs() * 60));
        let direction = if off < 0 { "earlier" } else { "later" };
        bail!(
            "in the time zone {zone} every log begins about {span} {direction} than its instance was made: name the zone \
             of the server that wrote them with --timezone, or give --any-timezone"
        );
    }
    Ok(())
}

/// The time of a file's first line, if that has one.
fn first_time(file: &[u8], zone: Tz) -> Option<Timestamp> {
    let mut first = None;
    let mut take = |line: Line<'_>| {
        first = line.level.map(|_| line.ts);
        Err(())
    };
    let mut parser = Parser::new(zone, Timestamp::from_nanos(0));
    // The error ends it after one line.
    if parser.push(file, &mut take).is_ok() {
        let _ = parser.finish(&mut take);
    }
    first
}

/// By how many minutes all are off: alike, by half an hour at least, and by no more than two zones can differ.
fn off_by(minutes: &mut [i64]) -> Option<i64> {
    minutes.sort_unstable();
    let (first, last) = (*minutes.first()?, *minutes.last()?);
    let middle = minutes[minutes.len() / 2];
    let alike = minutes.len() >= MIN_SAMPLES && last - first <= 10;
    (alike && (25..=26 * 60).contains(&middle.abs())).then_some(middle)
}

/// What PowerJob knows of an instance beside its log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) ids: InstanceFacts,
    pub(super) status: Option<Status>,
    pub(super) attempt: AttemptNo,
    /// Milliseconds since 1970.
    pub(super) finished_at: Option<i64>,
}

impl Facts {
    /// Where the log of an instance belongs. A log is stored when its instance is over, so one of which nothing is
    /// known is over, too.
    pub(super) fn target(facts: Option<Self>, id: InstanceId) -> Target {
        let over = |outcome, at| End::Over { outcome, at };
        let end = match facts {
            Some(Self { status: Some(status), finished_at, .. }) => match status.outcome() {
                Some(outcome) => over(Some(outcome), finished_at.filter(|at| *at > 0).map(Millis::new)),
                None => End::Open,
            },
            _ => over(None, None),
        };
        let ids = facts.map_or_else(InstanceFacts::default, |facts| facts.ids);
        Target {
            instance: id.instance(),
            attempt: facts.map_or(AttemptNo::FIRST, |facts| facts.attempt),
            job: ids.job(),
            labels: ids.labels(),
            started_at: id.created_at(),
            end,
        }
    }
}

/// What is known of these instances; nothing without a table.
pub(super) async fn facts_of(
    table: Option<&InstanceTable>,
    ids: &[InstanceId],
) -> anyhow::Result<HashMap<InstanceId, Facts>> {
    match table {
        Some(table) => table.facts(ids).await,
        None => Ok(HashMap::new()),
    }
}

pub(super) async fn import(session: &mut Session, args: PowerjobArgs) -> anyhow::Result<Exit> {
    let source = args.from.as_deref().context("name the source: --from mysql://user@host:3306/powerjob")?;
    if source.starts_with("mysql:") || source.starts_with("mariadb:") || source.starts_with("jdbc:") {
        from_table(session, &args, source).await
    } else if let Some((_, _)) = source.split_once("://").filter(|(scheme, _)| *scheme != "file") {
        from_bucket(session, &args, source).await
    } else {
        from_dump(session, &args, source.strip_prefix("file://").unwrap_or(source)).await
    }
}

impl PowerjobArgs {
    fn settings(&self) -> Settings {
        Settings { zone: self.timezone }
    }

    fn database(&self, url: &str) -> anyhow::Result<MySqlConnectOptions> {
        let password = match &self.password_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => None,
        };
        mysql::options(url, password.as_deref())
    }

    /// The database that `--instances` names.
    async fn other_instances(&self) -> anyhow::Result<Option<InstanceTable>> {
        match &self.instances {
            Some(url) => {
                InstanceTable::open(mysql::connect(self.database(url)?, 1).await?, self.instance_table.clone()).await
            }
            None => Ok(None),
        }
    }

    async fn check_zone<S: Source>(&self, source: &S, samples: &[Sample<S::Key>]) -> anyhow::Result<()> {
        if self.any_timezone { Ok(()) } else { check_zone(source, samples, self.timezone).await }
    }
}

async fn from_table(session: &mut Session, args: &PowerjobArgs, url: &str) -> anyhow::Result<Exit> {
    let options = args.database(url)?;
    let (host, port, database) = (options.get_host(), options.get_port(), options.get_database().unwrap_or_default());
    let name = format!("mysql {host}:{port}/{database} {}", args.table);
    let pool = mysql::connect(options, u32::from(args.common.parallel) + 1).await?;
    let instances = match args.instances {
        Some(_) => args.other_instances().await?,
        None => InstanceTable::open(pool.clone(), args.instance_table.clone()).await?,
    };
    let mut files = FileTable::open(pool, args.table.clone(), instances, args.settings()).await?;
    let importer = Importer::new(session, &args.common, &name).await?;
    files.scan().await?;
    args.check_zone(&files, &files.samples).await?;
    importer.progress.borrow_mut().expect(files.rows);
    let (report, result) = importer.run(&mut files).await;
    conclude(session, &report, result)
}

async fn from_bucket(session: &mut Session, args: &PowerjobArgs, url: &str) -> anyhow::Result<Exit> {
    let url: Url = url.parse().with_context(|| format!("\"{url}\" is no URL such as s3://bucket/log/"))?;
    let name = format!("bucket {}", objects::shown(&url));
    let mut objects = Objects::new(args.store.open(url)?, args.other_instances().await?, args.settings());
    let importer = Importer::new(session, &args.common, &name).await?;
    args.check_zone(&objects, &objects.samples().await?).await?;
    let (report, result) = importer.run(&mut objects).await;
    conclude(session, &report, result)
}

async fn from_dump(session: &mut Session, args: &PowerjobArgs, folder: &str) -> anyhow::Result<Exit> {
    let folder = Path::new(folder).canonicalize().with_context(|| format!("find {folder}"))?;
    let mut dump = Dump::open(&folder, args.other_instances().await?, args.settings())?;
    let importer = Importer::new(session, &args.common, &format!("dump {}", folder.display())).await?;
    args.check_zone(&dump, &dump.samples).await?;
    importer.progress.borrow_mut().expect(dump.total);
    let (report, result) = importer.run(&mut dump).await;
    conclude(session, &report, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_that_is_wrong_shows_in_every_log() {
        let off = |minutes: &[i64]| off_by(&mut minutes.to_vec());
        assert_eq!(off(&[-480, -479, -475, -480]), Some(-479));
        assert_eq!(off(&[481, 480, 485]), Some(481));
        // Right; one that waited long; too few; another day, so not the zone.
        for fine in [&[0, 1, 0, 3][..], &[0, 480, 1], &[480, 480], &[2880, 2880, 2880], &[]] {
            assert_eq!(off(fine), None, "{fine:?}");
        }
        let file = b"2026-11-22 18:00:00.000 [w] INFO a\n2026-11-22 19:00:00.000 [w] INFO b\n";
        let first = |file: &[u8]| first_time(file, Tz::Asia__Shanghai).map(|ts| ts.to_string());
        assert_eq!(first(file).as_deref(), Some("2026-11-22T10:00:00.000Z"));
        assert_eq!(first(&file[..30]), None);
        assert_eq!(first(&file[..34]).as_deref(), Some("2026-11-22T10:00:00.000Z"));
    }

    #[test]
    fn what_is_known_of_an_instance_says_where_its_log_belongs() {
        let id = InstanceId::new(820_959_510_528_000_000).expect("an id");
        let facts = |code| Facts {
            ids: InstanceFacts { job_id: Some(42), ..InstanceFacts::default() },
            status: Status::from_code(code),
            attempt: AttemptNo::FIRST,
            finished_at: Some(1_751_508_000_000),
        };
        let end = |facts| Facts::target(facts, id).end;
        let at = Some(Millis::new(1_751_508_000_000));
        assert_eq!(end(Some(facts(5))), End::Over { outcome: Some(crate::model::Outcome::Succeeded), at });
        assert_eq!(end(Some(facts(3))), End::Open);
        assert_eq!([end(None), end(Some(facts(77)))], [End::Over { outcome: None, at: None }; 2]);
        assert_eq!(Facts::target(Some(facts(5)), id).job.expect("a job").as_str(), "42");
    }
}
