//! `logtier import files`: a tree of log files, whose paths say whose they are.

use std::fs::{File, ReadDir};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use chrono::{NaiveDate, NaiveTime};
use chrono_tz::Tz;
use clap::{Args, ValueEnum};

use super::pattern::{Pattern, Said, Template};
use super::plain::{PlainParser, in_zone, stamp};
use super::powerjob::Facts;
use super::report::Skip;
use super::{Common, End, Found, Importer, Lines, Log, PIECE_BYTES, Source, Target, conclude};
use crate::cli::{Exit, Session};
use crate::model::{AttemptNo, Labels, Millis, Timestamp};
use crate::protocol::powerjob::{InstanceId, Parser, parse_zone};

/// Files of a page.
const PAGE_FILES: usize = 256;
/// The first line with a time is looked for this far into a file.
const LOOK_BYTES: usize = 64 << 10;
/// A file that was written to so lately may go on: its instance is not finished by the import.
const SETTLED_AFTER_MILLIS: i64 = 10 * 60 * 1000;

#[derive(Debug, Args)]
#[command(after_help = "\
A pattern has names in braces, each for anything but a slash: {instance} must be there; {job}, {attempt} and {date}
(2026-11-22 or 20261122) have their meaning; every other name becomes a label. It is compared with the end of a path.")]
pub(in crate::cli) struct FilesArgs {
    /// Where the tree begins
    dir: PathBuf,
    /// How the scheduler names its files
    #[arg(long, required_unless_present = "pattern", conflicts_with = "pattern")]
    preset: Option<Preset>,
    /// How the files are named, such as {job}/{date}/{instance}.{attempt}.log
    #[arg(long, value_name = "PATTERN")]
    pattern: Option<Template>,
    /// The zone of times that do not say theirs [default: UTC; Asia/Shanghai for schedulers from there]
    #[arg(long, value_name = "ZONE", value_parser = parse_zone)]
    timezone: Option<Tz>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// {date}/{instance}.log
    XxlJob,
    /// {date}/{workflow}/{version}/{workflow_instance}/{instance}.log
    Dolphinscheduler,
    /// dag_id=…/run_id=…/task_id=…/attempt=N.log
    Airflow,
    /// {id}-stable.log of a server's online_log, or oms-{id}.log
    Powerjob,
}

/// Pattern, instance and job.
type Naming = (&'static str, &'static str, Option<&'static str>);

impl Preset {
    /// The first that fits a path counts.
    fn namings(self) -> &'static [Naming] {
        match self {
            Self::XxlJob => &[("{date}/{instance}.log", "{instance}", None)],
            Self::Dolphinscheduler => {
                &[("{date}/{workflow}/{version}/{workflow_instance}/{instance}.log", "{instance}", Some("{workflow}"))]
            }
            Self::Airflow => &[
                (
                    "dag_id={dag_id}/run_id={run_id}/task_id={task_id}/map_index={map_index}/attempt={attempt}.log",
                    "{dag_id}/{run_id}/{task_id}/{map_index}",
                    Some("{dag_id}.{task_id}"),
                ),
                (
                    "dag_id={dag_id}/run_id={run_id}/task_id={task_id}/attempt={attempt}.log",
                    "{dag_id}/{run_id}/{task_id}",
                    Some("{dag_id}.{task_id}"),
                ),
            ],
            Self::Powerjob => &[],
        }
    }

    fn zone(self) -> Tz {
        match self {
            Self::Airflow => Tz::UTC,
            Self::XxlJob | Self::Dolphinscheduler | Self::Powerjob => Tz::Asia__Shanghai,
        }
    }
}

/// Whose log a path is.
#[derive(Debug)]
struct Layout {
    pattern: Pattern,
    instance: Template,
    job: Option<Template>,
}

impl Layout {
    fn new(pattern: &Template, instance: Template, job: Option<Template>) -> Result<Self, String> {
        Ok(Self { pattern: Pattern::new(pattern)?, instance, job })
    }

    fn of_preset((pattern, instance, job): &Naming) -> Result<Self, String> {
        Self::new(&pattern.parse()?, instance.parse()?, job.map(str::parse).transpose()?)
    }

    fn of_pattern(pattern: &Template) -> Result<Self, String> {
        let has = |wanted: &str| pattern.names().any(|name| name == wanted);
        if !has("instance") {
            return Err("the pattern has no {instance}".to_owned());
        }
        let job = has("job").then(|| "{job}".parse()).transpose()?;
        Self::new(pattern, "{instance}".parse()?, job)
    }

    /// `None` where the path does not fit, or says a name that is none.
    fn target(&self, path: &str, zone: Tz) -> Option<Target> {
        let said = self.pattern.read(path)?;
        let attempt = said.get("attempt").map_or(Some(AttemptNo::FIRST), |text| text.parse().ok())?;
        let job = self.job.as_ref().map(|job| job.fill(&said).parse()).transpose().ok()?;
        let special = ["instance", "attempt", "date", "job"];
        let labels = said.iter().filter(|(name, _)| !special.contains(&name.as_str()));
        let labels = Labels::new(labels.map(|(name, value)| (name.clone(), value.clone())).collect()).ok()?;
        let instance = self.instance.fill(&said).parse().ok()?;
        let started_at = day_of(&said, zone).unwrap_or(Millis::ZERO);
        Some(Target { instance, attempt, job, labels, started_at, end: End::Over { outcome: None, at: None } })
    }
}

fn day_of(said: &Said, zone: Tz) -> Option<Millis> {
    let digits: String = said.get("date")?.chars().filter(char::is_ascii_digit).collect();
    let date = NaiveDate::parse_from_str(&digits, "%Y%m%d").ok()?;
    Some(millis(in_zone(date.and_time(NaiveTime::MIN), zone)?))
}

fn millis(ts: Timestamp) -> Millis {
    Millis::new(ts.nanos().div_euclid(1_000_000))
}

/// A walk over a tree, a folder at a time. Links are followed to files only, so that it ends.
#[derive(Debug)]
struct FileTree {
    root: PathBuf,
    open: Vec<ReadDir>,
    layouts: Vec<Layout>,
    is_powerjob: bool,
    zone: Tz,
    now: Millis,
}

impl FileTree {
    fn next_file(&mut self) -> io::Result<Option<PathBuf>> {
        while let Some(folder) = self.open.last_mut() {
            let Some(entry) = folder.next().transpose()? else {
                self.open.pop();
                continue;
            };
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                self.open.push(std::fs::read_dir(&path)?);
            } else if std::fs::metadata(&path).is_ok_and(|meta| meta.is_file()) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    fn judge(&self, path: PathBuf) -> anyhow::Result<Found<PathBuf>> {
        let name = path.strip_prefix(&self.root).unwrap_or(&path).to_string_lossy().into_owned();
        let target = match self.is_powerjob {
            true => name.rsplit('/').next().and_then(InstanceId::of_file).map(|id| Facts::target(None, id)),
            false => self.layouts.iter().find_map(|layout| layout.target(&name, self.zone)),
        };
        let Some(mut target) = target else {
            let rotated = [".gz", ".zst", ".xz", ".bz2"].iter().any(|ending| name.ends_with(ending));
            let why = if rotated { Skip::Compressed } else { Skip::NotALog };
            return Ok(Found::Skipped { name, why });
        };
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        let (meta, file) = opened.with_context(|| format!("open {}", path.display()))?;
        if is_compressed(&file).with_context(|| format!("read {}", path.display()))? {
            return Ok(Found::Skipped { name, why: Skip::Compressed });
        }
        let written_at = modified(&meta);
        if !self.is_powerjob {
            let first = first_time(&file, self.zone).with_context(|| format!("read {}", path.display()))?;
            let date = Some(target.started_at).filter(|at| *at > Millis::ZERO);
            target.started_at = first.map(millis).or(date).unwrap_or(written_at);
        }
        if self.now.get() - written_at.get() < SETTLED_AFTER_MILLIS {
            target.end = End::Open;
        }
        let version = format!("{}@{}", meta.len(), written_at.get());
        Ok(Found::Log(Log { name, version, bytes: meta.len(), target, key: path }))
    }
}

fn modified(meta: &std::fs::Metadata) -> Millis {
    use std::os::unix::fs::MetadataExt as _;
    Millis::new(meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000)
}

/// The first time that the beginning of a file says.
fn first_time(file: &File, zone: Tz) -> io::Result<Option<Timestamp>> {
    let beginning = read_at(file, 0, LOOK_BYTES)?;
    Ok(beginning.split(|byte| *byte == b'\n').find_map(|line| stamp(line, zone).ts))
}

/// Whether a file begins as gzip, zstd, xz or bzip2 files do, whatever it is called.
fn is_compressed(file: &File) -> io::Result<bool> {
    const MAGIC: [&[u8]; 4] = [b"\x1F\x8B\x08", b"\x28\xB5\x2F\xFD", b"\xFD7zXZ\0", b"BZh"];
    let beginning = read_at(file, 0, 6)?;
    Ok(MAGIC.iter().any(|magic| beginning.starts_with(magic)))
}

/// Less than `len` only at the file's end.
fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, mut filled) = (vec![0; len], 0);
    while filled < len {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

impl Source for FileTree {
    type Key = PathBuf;

    async fn next_page(&mut self) -> anyhow::Result<Option<Vec<Found<PathBuf>>>> {
        let mut page = Vec::new();
        while page.len() < PAGE_FILES {
            let Some(path) = self.next_file().context("walk the tree")? else { break };
            page.push(self.judge(path)?);
        }
        Ok(Some(page).filter(|page| !page.is_empty()))
    }

    async fn read(&self, path: &PathBuf, offset: u64) -> anyhow::Result<Option<Bytes>> {
        let path = path.clone();
        let reading = tokio::task::spawn_blocking(move || read_piece(&path, offset));
        reading.await.context("read a file")?
    }

    fn lines(&self, log: &Log<PathBuf>) -> Lines {
        let start = log.target.started_at.timestamp();
        match self.is_powerjob {
            true => Lines::PowerJob(Parser::new(self.zone, start)),
            false => Lines::Plain(PlainParser::new(self.zone, start)),
        }
    }
}

fn read_piece(path: &Path, offset: u64) -> anyhow::Result<Option<Bytes>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let len = usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX);
    let piece = read_at(&file, offset, len).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(piece.into()))
}

pub(super) async fn import(session: &mut Session, args: FilesArgs) -> anyhow::Result<Exit> {
    let layouts: Result<Vec<Layout>, String> = match (&args.preset, &args.pattern) {
        (_, Some(pattern)) => Layout::of_pattern(pattern).map(|layout| vec![layout]),
        (Some(preset), None) => preset.namings().iter().map(Layout::of_preset).collect(),
        (None, None) => Ok(Vec::new()),
    };
    let layouts = layouts.map_err(anyhow::Error::msg)?;
    let root = args.dir.canonicalize().with_context(|| format!("find {}", args.dir.display()))?;
    let open = vec![std::fs::read_dir(&root).with_context(|| format!("list {}", root.display()))?];
    let zone = args.timezone.unwrap_or_else(|| args.preset.map_or(Tz::UTC, Preset::zone));
    let is_powerjob = args.preset == Some(Preset::Powerjob);
    let mut tree = FileTree { root, open, layouts, is_powerjob, zone, now: session.clock.now() };
    let name = format!("files {}", tree.root.display());
    let importer = Importer::new(session, &args.common, &name).await?;
    let (report, result) = importer.run(&mut tree).await;
    conclude(session, &report, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a preset makes of a path.
    fn target(preset: Preset, path: &str) -> Option<String> {
        let layouts = preset.namings().iter().map(|naming| Layout::of_preset(naming).expect("a layout"));
        let target = layouts.into_iter().find_map(|layout| layout.target(path, preset.zone()))?;
        let job = target.job.map_or_else(String::new, |job| job.to_string());
        Some(format!("{}#{} {job} {} {}", target.instance, target.attempt, target.labels.to_json(), target.started_at))
    }

    #[test]
    fn presets_know_their_schedulers_paths() {
        let check = |preset, path, wanted: Option<&str>| assert_eq!(target(preset, path).as_deref(), wanted, "{path}");
        check(Preset::XxlJob, "2026-11-22/4711.log", Some("4711#1  {} 2026-11-21T16:00:00.000Z"));
        check(Preset::XxlJob, "callbacklog/xxl-job-callback-1.log", None);
        check(Preset::XxlJob, "gluesource/1.sh", None);
        check(
            Preset::Dolphinscheduler,
            "20261122/6932456342432/3/17/4711.log",
            Some(
                r#"4711#1 6932456342432 {"version":"3","workflow":"6932456342432","workflow_instance":"17"} 2026-11-21T16:00:00.000Z"#,
            ),
        );
        check(
            Preset::Airflow,
            "dag_id=d/run_id=manual__2026-11-22T10:00:00+00:00/task_id=g.t/attempt=2.log",
            Some(
                r#"d/manual__2026-11-22T10:00:00+00:00/g.t#2 d.g.t {"dag_id":"d","run_id":"manual__2026-11-22T10:00:00+00:00","task_id":"g.t"} 1970-01-01T00:00:00.000Z"#,
            ),
        );
        check(
            Preset::Airflow,
            "dag_id=d/run_id=r/task_id=t/map_index=3/attempt=1.log",
            Some(r#"d/r/t/3#1 d.t {"dag_id":"d","map_index":"3","run_id":"r","task_id":"t"} 1970-01-01T00:00:00.000Z"#),
        );
        check(Preset::Airflow, "dag_id=d/run_id=r/task_id=t/attempt=1.log.trigger.5.log", None);
    }

    #[test]
    fn a_pattern_must_name_the_instance() {
        let layout = |pattern: &str| Layout::of_pattern(&pattern.parse().expect("a template"));
        assert!(layout("{job}/{date}.log").is_err());
        let target = layout("{host}/{job}-{instance}.{attempt}.log").expect("a layout").target("h/a-7.2.log", Tz::UTC);
        let target = target.expect("it fits");
        assert_eq!((target.job.expect("a job").as_str(), target.labels.get("host")), ("a", Some("h")));
        assert_eq!((target.instance.as_str(), target.attempt.get()), ("7", 2));
    }
}
