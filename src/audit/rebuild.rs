//! `logtier rebuild-catalog`: an empty or older database and the bucket give back every archived attempt.
//!
//! ```text
//! list     all objects (32 bytes each in memory) and marks
//! objects  newest first: index and entries of each, merged into the catalog block by block
//! trim     attempts whose first part is not at line 0 begin with it
//! marks    what was deleted goes again, what was held is held
//! ```
//!
//! # Invariants
//!
//! - Nothing that was deleted or replaced comes back. An object that says that it replaces others is
//!   read whole before it counts, where they are still there: it takes their place.
//! - Nothing is deleted from the bucket. Objects that gave nothing get no row and stay strangers.
//! - Ids are kept, so marks and object indexes go on to mean the same attempts.
//!
//! # Crash consistency
//!
//! Every step can be run again and changes nothing that it did before. A rebuild that has begun is
//! noted in the database, and no daemon starts on it before a rebuild has ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use ulid::Ulid;

use super::finding::{Finding, FindingKind, Phase, Progress};
use super::{Audit, AuditError};
use crate::catalog::{BroughtBack, FoundEntry, FoundSegment, IsReplaced, Kind, NaturalKey, SegmentId, SegmentState};
use crate::cold::segment::{Entry, FrameMap, Index, Replay};
use crate::cold::{self, Key, KeyKind, ObjectName};
use crate::db::{Db, Home, Shard};
use crate::model::{Age, AttemptId, Mark, MarkKind, Millis, RuleSet, Timestamp};
use crate::pause::pause_after;

/// Objects whose index is read ahead: a request for each takes some 50 ms of waiting.
const INDEXES_AHEAD: usize = 8;

/// Marks that are read at the same time.
const MARKS_AT_A_TIME: usize = 16;

/// What a rebuild goes by.
#[derive(Debug, Clone)]
pub struct RebuildSettings {
    pub rules: Arc<RuleSet>,
    /// The bucket's; objects of other clusters are left alone.
    pub cluster_id: String,
    /// Only look, and say what would be brought back.
    pub dry_run: bool,
}

/// What a rebuild did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct RebuildSummary {
    pub objects: u64,
    /// Objects whose attempts all stand in newer ones that say so, and those that the catalog gave up.
    pub objects_replaced: u64,
    pub objects_damaged: u64,
    /// Objects of which nothing was needed. They stay, and `verify` calls them orphans.
    pub objects_unneeded: u64,
    /// Attempts that the catalog did not know.
    pub attempts: u64,
    /// Parts that it did not know, and their lines. In a dry run: those of objects that it does not know.
    pub parts: u64,
    pub lines: u64,
    pub parts_known: u64,
    pub parts_superseded: u64,
    /// Attempts that begin behind line 0: older windows were trimmed, or their object is lost.
    pub attempts_cut: u64,
    pub marks: u64,
    pub deleted: u64,
    pub held: u64,
    pub conflicts: u64,
}

/// Brings back what the bucket holds. `catalog` of `audit` may be empty, or of an older backup.
pub async fn rebuild(
    audit: &Audit,
    settings: &RebuildSettings,
    progress: &Progress,
    mut tell: impl FnMut(&Finding) + Send,
) -> Result<RebuildSummary, AuditError> {
    let bucket = Bucket::list(audit, progress).await?;
    let mut run = Rebuild {
        audit,
        settings,
        progress,
        listed: Arc::new(bucket.ulids()),
        replaced: HashSet::new(),
        cut: HashMap::new(),
        summary: RebuildSummary::default(),
    };
    run.objects(&bucket, &mut tell).await?;
    run.trim().await?;
    run.marks(&bucket, &mut tell).await?;
    Ok(run.summary)
}

/// All that the bucket holds: 32 bytes an object, 16 a mark.
struct Bucket {
    folders: Vec<String>,
    /// Newest first.
    objects: Vec<Object>,
    marks: Vec<Ulid>,
}

#[derive(Debug, Clone, Copy)]
struct Object {
    ulid: Ulid,
    byte_length: u64,
    folder: u32,
}

impl Bucket {
    async fn list(audit: &Audit, progress: &Progress) -> Result<Self, AuditError> {
        progress.begin(Phase { name: "listing the bucket", unit: "objects", total: 0 });
        let mut bucket = Self { folders: Vec::new(), objects: Vec::new(), marks: Vec::new() };
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let mut listed = audit.store.list(Key::v1_folder());
        while let Some(object) = listed.try_next().await? {
            progress.add(0, 1);
            match object.key.kind() {
                KeyKind::Segment(name) => {
                    let folder = object.key.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
                    let folder = *numbers.entry(folder.to_owned()).or_insert_with(|| {
                        bucket.folders.push(folder.to_owned());
                        bucket.folders.len() as u32 - 1
                    });
                    bucket.objects.push(Object { ulid: name.ulid, byte_length: object.byte_length, folder });
                }
                KeyKind::Mark(ulid) => bucket.marks.push(ulid),
                KeyKind::Cluster | KeyKind::Stranger => {}
            }
        }
        bucket.objects.sort_unstable_by_key(|object| std::cmp::Reverse(object.ulid));
        bucket.marks.sort_unstable();
        Ok(bucket)
    }

    fn key(&self, object: &Object) -> Key {
        Key::stored(format!("{}/{}.ndjson.zst", self.folders[object.folder as usize], object.ulid))
    }

    /// In order.
    fn ulids(&self) -> Vec<Ulid> {
        self.objects.iter().rev().map(|object| object.ulid).collect()
    }
}

struct Rebuild<'a> {
    audit: &'a Audit,
    settings: &'a RebuildSettings,
    progress: &'a Progress,
    /// Every object of the bucket, in order.
    listed: Arc<Vec<Ulid>>,
    /// Those that another object has taken the place of.
    replaced: HashSet<Ulid>,
    /// Attempts of which a part behind line 0 was seen.
    cut: HashMap<AttemptId, (usize, Shard)>,
    summary: RebuildSummary,
}

type Tell<'t> = dyn FnMut(&Finding) + Send + 't;

impl Rebuild<'_> {
    async fn objects(&mut self, bucket: &Bucket, tell: &mut Tell<'_>) -> Result<(), AuditError> {
        let total = bucket.objects.len() as u64;
        self.progress.begin(Phase { name: "reading indexes", unit: "objects", total });
        let store = &self.audit.store;
        let indexes = futures::stream::iter(&bucket.objects).map(|object| async move {
            let key = bucket.key(object);
            let index = Index::open(store, &key, object.byte_length).await;
            (object, key, index)
        });
        let indexes = indexes.buffered(INDEXES_AHEAD);
        futures::pin_mut!(indexes);
        while let Some((object, key, index)) = indexes.next().await {
            self.summary.objects += 1;
            self.progress.add(1, 1);
            let done = match index {
                Ok(index) => self.object(object, index, tell).await,
                Err(error) => Err(error.into()),
            };
            match done {
                Ok(()) => pause_after("rebuild-object", &self.audit.clock).await,
                Err(AuditError::Cold(cold::Error::Corrupt { what, .. })) => {
                    self.summary.objects_damaged += 1;
                    tell(&Finding::new(FindingKind::Damaged, &key, what));
                }
                // Deleted since it was listed: by a person, for daemons are down.
                Err(AuditError::Cold(cold::Error::NotFound { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn object(&mut self, object: &Object, index: Index, tell: &mut Tell<'_>) -> Result<(), AuditError> {
        let header = index.header().clone();
        let name = ObjectName {
            app: header.app.clone(),
            rule: header.rule.clone(),
            finish_day: header.finish_day,
            ulid: object.ulid,
        };
        if header.cluster != self.settings.cluster_id || name.key() != *index.key() {
            let what = format!("an object of cluster {} that was written as {}", header.cluster, name.key());
            tell(&Finding::new(FindingKind::Orphan, index.key(), what));
            return Ok(());
        }
        if self.replaced.contains(&object.ulid) || self.is_given_up(object.ulid).await? {
            self.summary.objects_replaced += 1;
            return Ok(());
        }
        if header.replaces.iter().any(|ulid| self.listed.binary_search(ulid).is_ok()) {
            let mut replay = Replay::open(&self.audit.store, index.key(), object.byte_length, None).await?;
            while replay.next().await?.is_some() {}
        }
        self.replaced.extend(header.replaces.iter().copied());
        if self.settings.dry_run {
            return self.rehearse(object.ulid, &index).await;
        }
        let done = self.bring_back(object, &index).await?;
        self.summary.objects_unneeded += u64::from(done.parts + done.known == 0);
        for conflict in &done.conflicts {
            tell(&Finding::new(FindingKind::Lines, index.key(), conflict));
        }
        let summary = &mut self.summary;
        summary.attempts += done.attempts;
        summary.parts += done.parts;
        summary.lines += done.lines;
        summary.parts_known += done.known;
        summary.parts_superseded += done.superseded;
        summary.conflicts += done.conflicts.len() as u64;
        Ok(())
    }

    /// Whether the catalog doomed the object before its backup was made.
    async fn is_given_up(&self, ulid: Ulid) -> Result<bool, AuditError> {
        for db in self.audit.catalog.cluster.servers() {
            let row = self.audit.catalog.audited_segment(db, SegmentId::of(ulid)).await?;
            if row.is_some_and(|row| row.segment.state == SegmentState::Doomed) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn rehearse(&mut self, ulid: Ulid, index: &Index) -> Result<(), AuditError> {
        let totals = index.totals();
        for db in self.audit.catalog.cluster.servers() {
            let row = self.audit.catalog.audited_segment(db, SegmentId::of(ulid)).await?;
            if row.is_some_and(|row| row.segment.state == SegmentState::Live) {
                self.summary.parts_known += totals.attempts;
                return Ok(());
            }
        }
        self.summary.parts += totals.attempts;
        self.summary.lines += totals.extent.lines;
        Ok(())
    }

    async fn bring_back(&mut self, object: &Object, index: &Index) -> Result<BroughtBack, AuditError> {
        let cluster = self.audit.catalog.cluster.clone();
        let (listed, replaces) = (Arc::clone(&self.listed), index.header().replaces.clone());
        let is_replaced: IsReplaced =
            Arc::new(move |ulid| replaces.contains(&ulid) || listed.binary_search(&ulid).is_err());
        let now = self.audit.clock.now();
        let mut done = BroughtBack::default();
        let mut server: Option<usize> = None;
        let mut segment: Option<FoundSegment> = None;
        let mut entries = index.entries(&self.audit.store).await?;
        while let Some(block) = entries.next_block().await? {
            let mut by_shard: HashMap<Shard, (Home, Vec<FoundEntry>)> = HashMap::new();
            for entry in block {
                let key = &entry.attempt.identity.key;
                let home = cluster.home(&key.app, &key.instance);
                if *server.get_or_insert(home.db.number()) != home.db.number() {
                    return Err(AuditError::OtherServers(index.key().to_string()));
                }
                if segment.is_none() {
                    segment = Some(self.found_segment(&home.db, object, index).await?);
                }
                if entry.first_line > 0 && entry.extent.lines > 0 {
                    self.cut.insert(entry.attempt.id, (home.db.number(), home.shard));
                }
                let found = self.found_entry(&home.db, index, &entry).await?;
                by_shard.entry(home.shard).or_insert_with(|| (home, Vec::new())).1.push(found);
            }
            let Some(segment) = &segment else { continue };
            for (home, found) in by_shard.into_values() {
                done.add(self.audit.catalog.bring_back(&home, segment, &found, &is_replaced, now).await?);
            }
        }
        Ok(done)
    }

    async fn found_segment(&self, db: &Arc<Db>, object: &Object, index: &Index) -> Result<FoundSegment, AuditError> {
        let (header, totals) = (index.header(), index.totals());
        Ok(FoundSegment {
            ulid: object.ulid,
            app_id: self.audit.catalog.name_number(db, Kind::App, header.app.as_str()).await?,
            rule_id: self.audit.catalog.name_number(db, Kind::Rule, header.rule.as_str()).await?,
            finish_day: header.finish_day,
            byte_length: object.byte_length,
            index_offset: index.index_offset(),
            frames_offset: index.frames_offset(),
            created_at: header.created_at,
            entries: totals.attempts,
            lines: totals.extent.lines,
        })
    }

    async fn found_entry(&self, db: &Arc<Db>, index: &Index, entry: &Entry) -> Result<FoundEntry, AuditError> {
        let catalog = &self.audit.catalog;
        let (meta, header) = (&entry.attempt, index.header());
        let identity = &meta.identity;
        let job_id = match &identity.job {
            Some(job) => catalog.name_number(db, Kind::Job, job.as_str()).await?,
            None => 0,
        };
        let place = index.place(entry)?;
        let expires_at = self.expires_at(entry);
        // The object has each line with the identity in front, the hot tier with a brace.
        let heads = entry.extent.lines.saturating_mul(identity.head().len() as u64 - 1);
        Ok(FoundEntry {
            id: meta.id,
            key: NaturalKey {
                app_id: catalog.name_number(db, Kind::App, identity.key.app.as_str()).await?,
                instance: identity.key.instance.clone(),
                attempt: identity.key.attempt,
            },
            job_id,
            labels: identity.labels.clone(),
            state: meta.state,
            outcome: meta.outcome,
            meta_version: meta.meta_version.into(),
            created_at: meta.created_at,
            finished_at: meta.finished_at,
            written_at: meta.finished_at.unwrap_or(header.created_at),
            expires_at,
            due_at: if meta.state.is_finished() { expires_at.unwrap_or(Millis::ZERO) } else { Millis::ZERO },
            lines: entry.lines(),
            raw_bytes: entry.raw_bytes.saturating_sub(heads),
            byte_offset: place.byte_offset,
            byte_length: place.byte_length,
            skip: place.skip,
            ts_range: entry.extent.ts.map(|ts| (ts.min(), ts.max())),
            levels: entry.extent.levels,
            frames: place.frames.as_ref().map(FrameMap::encode).unwrap_or_default(),
        })
    }

    /// As publishing it would set it: by the rules of now, and not where newer runs decide.
    fn expires_at(&self, entry: &Entry) -> Option<Millis> {
        let identity = &entry.attempt.identity;
        let rule = self.settings.rules.rule_for(&identity.key.app, identity.job.as_ref(), entry.attempt.outcome);
        let finished_at = entry.attempt.finished_at.filter(|_| entry.attempt.state.is_finished())?;
        match rule.cold_for {
            Age::For(span) if rule.keep_at_least == 0 => Some(finished_at.after(span)),
            _ => None,
        }
    }

    async fn trim(&mut self) -> Result<(), AuditError> {
        let total = self.cut.len() as u64;
        self.progress.begin(Phase { name: "looking at first lines", unit: "attempts", total });
        for (id, (server, shard)) in std::mem::take(&mut self.cut) {
            let home = Home { db: Arc::clone(&self.audit.catalog.cluster.servers()[server]), shard };
            self.summary.attempts_cut += u64::from(self.audit.catalog.trim_to_parts(&home, id).await?);
            self.progress.add(1, 1);
        }
        Ok(())
    }

    async fn marks(&mut self, bucket: &Bucket, tell: &mut Tell<'_>) -> Result<(), AuditError> {
        self.progress.begin(Phase { name: "reading marks", unit: "marks", total: bucket.marks.len() as u64 });
        let store = &self.audit.store;
        let read = futures::stream::iter(&bucket.marks).map(|ulid| async move {
            let key = Key::mark(*ulid);
            let mark = super::marks::read(store, &key).await;
            (key, mark)
        });
        let read = read.buffered(MARKS_AT_A_TIME);
        futures::pin_mut!(read);
        let mut said: HashMap<i64, Said> = HashMap::new();
        while let Some((key, mark)) = read.next().await {
            self.progress.add(1, 1);
            self.summary.marks += 1;
            match mark {
                Ok(mark) => said.entry(mark.attempt_id).or_insert_with(|| Said::of(&mark)).then(&mark),
                Err(cold::Error::Corrupt { what, .. }) => tell(&Finding::new(FindingKind::Damaged, &key, what)),
                Err(error) => return Err(error.into()),
            }
        }
        self.progress.begin(Phase { name: "applying marks", unit: "attempts", total: said.len() as u64 });
        for (id, said) in said {
            self.apply(AttemptId::stored(id), &said).await?;
            self.progress.add(1, 1);
        }
        Ok(())
    }

    async fn apply(&mut self, id: AttemptId, said: &Said) -> Result<(), AuditError> {
        let mark = &said.mark;
        let catalog = &self.audit.catalog;
        if self.settings.dry_run {
            self.summary.held += u64::from(said.held && said.deleted_at.is_none());
            self.summary.deleted += u64::from(said.deleted_at.is_some());
            return Ok(());
        }
        let home = catalog.cluster.home(&mark.app, &mark.instance);
        let Some(row) = catalog.attempts(&home, &[id]).await?.pop() else { return Ok(()) };
        if row.state.is_gone() || row.instance != mark.instance {
            return Ok(());
        }
        let is_held = said.held && said.deleted_at.is_none();
        let changes = is_held != row.held || said.deleted_at.is_some();
        if !changes {
            self.summary.held += u64::from(is_held);
            self.summary.deleted += u64::from(said.deleted_at.is_some());
            return Ok(());
        }
        let now = self.audit.clock.now();
        if is_held != row.held {
            catalog.set_hold(&home, id, is_held, now).await?;
        }
        self.summary.held += u64::from(is_held);
        if let Some(at) = said.deleted_at {
            self.summary.deleted += u64::from(catalog.delete(&home, id, at).await?);
        }
        Ok(())
    }
}

/// What all marks of an attempt say together.
#[derive(Debug)]
struct Said {
    mark: Mark,
    held: bool,
    deleted_at: Option<Millis>,
}

impl Said {
    fn of(mark: &Mark) -> Self {
        Self { mark: mark.clone(), held: false, deleted_at: None }
    }

    /// A delete is final; one that was asked for under a hold was refused.
    fn then(&mut self, mark: &Mark) {
        match mark.mark {
            _ if self.deleted_at.is_some() => {}
            MarkKind::Hold => self.held = true,
            MarkKind::Release => self.held = false,
            MarkKind::Delete if self.held => {}
            MarkKind::Delete => {
                let at = Timestamp::parse(&mark.at).map_or(0, |at| at.nanos() / 1_000_000);
                self.deleted_at = Some(Millis::new(at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AttemptNo;

    fn said(kinds: &[MarkKind]) -> (bool, bool) {
        let mark = |kind| Mark {
            mark: kind,
            app: "a".parse().expect("a name"),
            instance: "i".parse().expect("a name"),
            attempt: AttemptNo::FIRST,
            attempt_id: 1,
            at: "2026-01-02T03:04:05.000Z".to_owned(),
        };
        let mut said = Said::of(&mark(kinds[0]));
        kinds.iter().for_each(|kind| said.then(&mark(*kind)));
        (said.held, said.deleted_at.is_some())
    }

    #[test]
    fn marks_are_replayed_in_their_order() {
        use MarkKind::{Delete, Hold, Release};
        assert_eq!(said(&[Delete]), (false, true));
        assert_eq!(said(&[Hold]), (true, false));
        assert_eq!(said(&[Hold, Release]), (false, false));
        assert_eq!(said(&[Hold, Delete]), (true, false), "it was refused");
        assert_eq!(said(&[Hold, Release, Delete]), (false, true));
        assert!(said(&[Delete, Hold]).1, "nothing brings it back");
    }
}
