//! The objects of the bucket against the rows of the catalog, a folder at a time.
//!
//! A folder holds the objects of one app, rule and day. Its listing is sorted in memory (48 bytes an
//! object), the catalog's rows come in pages. While the archiver works, listing and rows are of
//! different moments; so whatever looks wrong is looked at again, each in the order that makes the
//! second look decisive.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use ulid::Ulid;

use super::finding::{Finding, FindingKind};
use super::{Audit, AuditError};
use crate::catalog::{AuditedSegment, FolderPlace, Kind, Segment, SegmentId};
use crate::cold::{self, Key, KeyKind, Listed, ObjectName};
use crate::db::{Db, Error};
use crate::model::App;

/// Rows of the segment table asked for at a time.
const PAGE: u32 = 1_000;

/// Attempts that a finding names; the rest is a number.
const MAX_NAMED: usize = 5;

/// A folder of the bucket, and where its rows are.
#[derive(Debug, Clone, Default)]
pub(super) struct Folder {
    rows: Vec<FolderRows>,
    /// Not of the form that logtier gives: all that is in it, at any depth, is strange.
    is_strange: bool,
}

/// The rows of a folder on one server.
#[derive(Debug, Clone, Copy)]
struct FolderRows {
    server: usize,
    app_id: i32,
    place: FolderPlace,
}

/// An object that some attempt needs and that is there.
#[derive(Debug, Clone)]
pub(super) struct Needed {
    pub server: usize,
    pub row: AuditedSegment,
    pub key: Key,
}

/// What came out of one folder.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub findings: Vec<Finding>,
    pub needed: Vec<Needed>,
    pub objects: u64,
}

impl Audit {
    /// The apps that catalog or bucket know, by their folder; with what else stands beside them.
    pub(super) async fn apps(&self) -> Result<(BTreeMap<String, Option<App>>, Compared), AuditError> {
        let mut apps = BTreeMap::new();
        let mut after = String::new();
        loop {
            let page = self.catalog.apps(&after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after.clone_from(last);
            for name in page {
                let app: App = name.parse().map_err(|_| Error::Row(format!("app \"{name}\"")))?;
                apps.insert(Key::app_folder(&app), Some(app));
            }
        }
        let mut strange = Compared::default();
        let (folders, objects) = self.store.list_folder(Key::v1_folder()).await?;
        for folder in folders.into_iter().filter(|folder| folder != Key::marks_folder()) {
            if folder.starts_with("v1/app=") {
                apps.entry(folder).or_insert(None);
            } else {
                strange.findings.extend(self.strangers(&folder).await?);
            }
        }
        let objects = objects.into_iter().filter(|object| object.key.kind() != KeyKind::Cluster);
        strange.findings.extend(objects.map(|object| stranger(&object)));
        Ok((apps, strange))
    }

    /// The folders of one app, of the catalog and of the bucket, from a day on.
    pub(super) async fn folders(
        &self,
        app_folder: &str,
        app: Option<&App>,
        since_day: i64,
    ) -> Result<(BTreeMap<String, Folder>, Compared), AuditError> {
        let mut folders: BTreeMap<String, Folder> = BTreeMap::new();
        if let Some(app) = app {
            for db in self.catalog.cluster.servers() {
                self.folders_of_server(db, app, since_day, &mut folders).await?;
            }
        }
        let mut strange = Compared::default();
        let (rules, objects) = self.store.list_folder(app_folder).await?;
        strange.findings.extend(objects.iter().map(stranger));
        for rule in rules {
            let (days, objects) = self.store.list_folder(&rule).await?;
            strange.findings.extend(objects.iter().map(stranger));
            for day in days {
                match Key::day_of_folder(&day) {
                    Some(number) if number < since_day => {}
                    Some(_) => drop(folders.entry(day).or_default()),
                    None => folders.entry(day).or_default().is_strange = true,
                }
            }
        }
        Ok((folders, strange))
    }

    async fn folders_of_server(
        &self,
        db: &Arc<Db>,
        app: &App,
        since_day: i64,
        folders: &mut BTreeMap<String, Folder>,
    ) -> Result<(), AuditError> {
        let Some(app_id) = self.catalog.find_name(db, Kind::App, app.as_str()).await? else { return Ok(()) };
        // No rule has the number 0, so this lies before the first folder of the day.
        let mut after = (since_day, 0);
        while let Some(place) = self.catalog.next_folder(db, app_id, after).await? {
            let rows = FolderRows { server: db.number(), app_id, place };
            folders.entry(self.folder_name(db, app, place).await?).or_default().rows.push(rows);
            after = place;
        }
        Ok(())
    }

    async fn folder_name(&self, db: &Arc<Db>, app: &App, (day, rule): FolderPlace) -> Result<String, AuditError> {
        let rule = self.catalog.name_of(db, rule).await?;
        let rule = rule.parse().map_err(|_| Error::Row(format!("rule \"{rule}\"")))?;
        Ok(ObjectName { app: app.clone(), rule, finish_day: day, ulid: Ulid::nil() }.folder())
    }

    /// The key of a segment's object.
    pub(super) async fn key_of(&self, db: &Arc<Db>, segment: &Segment) -> Result<Key, AuditError> {
        let app = self.catalog.name_of(db, segment.app_id).await?;
        let rule = self.catalog.name_of(db, segment.rule_id).await?;
        let (Ok(app), Ok(rule)) = (app.parse(), rule.parse()) else {
            return Err(Error::Row(format!("names of segment {}", segment.id.get())).into());
        };
        Ok(ObjectName { app, rule, finish_day: segment.finish_day, ulid: segment.ulid }.key())
    }

    /// Compares one folder.
    pub(super) async fn compare(&self, path: &str, folder: &Folder) -> Result<Compared, AuditError> {
        if folder.is_strange {
            return Ok(Compared { findings: self.strangers(path).await?, ..Compared::default() });
        }
        let mut compared = Compared::default();
        let (inner, objects) = self.store.list_folder(path).await?;
        for folder in inner {
            compared.findings.extend(self.strangers(&folder).await?);
        }
        let mut listed = Vec::with_capacity(objects.len());
        for object in objects {
            match object.key.kind() {
                KeyKind::Segment(name) => {
                    listed.push(Seen { ulid: name.ulid, byte_length: object.byte_length, is_known: false })
                }
                _ => compared.findings.push(stranger(&object)),
            }
        }
        listed.sort_unstable_by_key(|object| object.ulid);
        compared.objects = listed.len() as u64;
        for rows in &folder.rows {
            self.compare_rows(path, rows, &mut listed, &mut compared).await?;
        }
        for object in listed.iter().filter(|object| !object.is_known) {
            let key = Key::stored(format!("{path}{}.ndjson.zst", object.ulid));
            compared.findings.extend(self.confirm_orphan(key, object).await?);
        }
        Ok(compared)
    }

    async fn compare_rows(
        &self,
        path: &str,
        rows: &FolderRows,
        listed: &mut [Seen],
        compared: &mut Compared,
    ) -> Result<(), AuditError> {
        let db = &self.catalog.cluster.servers()[rows.server];
        let mut after = None;
        loop {
            let page = self.catalog.folder_segments(db, rows.app_id, rows.place, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.segment.id);
            for row in page {
                let key = Key::stored(format!("{path}{}.ndjson.zst", row.segment.ulid));
                let at = listed.binary_search_by_key(&row.segment.ulid, |object| object.ulid);
                let found = at.ok().map(|at| {
                    listed[at].is_known = true;
                    listed[at].byte_length
                });
                if !row.is_needed() {
                    continue;
                }
                if found == Some(row.segment.byte_length) {
                    compared.needed.push(Needed { server: rows.server, row, key });
                } else {
                    compared.findings.extend(self.confirm_bad(db, &row, &key).await?);
                }
            }
        }
    }

    /// A row is live until its object is no longer needed, and the object goes after that. So an
    /// object that is asked for first and a row that is live after that are of one truth.
    async fn confirm_bad(&self, db: &Arc<Db>, row: &AuditedSegment, key: &Key) -> Result<Option<Finding>, AuditError> {
        let length = match self.store.head(key).await {
            Ok(length) => Some(length),
            Err(cold::Error::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let row = self.catalog.audited_segment(db, row.segment.id).await?;
        let Some(row) = row.filter(AuditedSegment::is_needed) else { return Ok(None) };
        let recorded = row.segment.byte_length;
        let finding = match length {
            Some(length) if length == recorded => return Ok(None),
            Some(length) => {
                let what = format!("it has {length} bytes, the catalog says {recorded}");
                Finding::new(FindingKind::Damaged, key, what)
            }
            None => {
                Finding::new(FindingKind::Missing, key, format!("the bucket has no such object of {recorded} bytes"))
            }
        };
        Ok(Some(self.with_attempts(db, &row, finding).await?))
    }

    /// The row of an upload is committed before its first byte, and goes after its object.
    async fn confirm_orphan(&self, key: Key, object: &Seen) -> Result<Option<Finding>, AuditError> {
        for db in self.catalog.cluster.servers() {
            let Some(row) = self.catalog.audited_segment(db, SegmentId::of(object.ulid)).await? else { continue };
            if row.segment.ulid == object.ulid && self.key_of(db, &row.segment).await? == key {
                return Ok(None);
            }
        }
        match self.store.head(&key).await {
            Ok(length) => {
                let what = format!("{length} bytes that the catalog does not know");
                Ok(Some(Finding::new(FindingKind::Orphan, key, what)))
            }
            Err(cold::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Says whose lines stand in the object.
    pub(super) async fn with_attempts(
        &self,
        db: &Arc<Db>,
        row: &AuditedSegment,
        mut finding: Finding,
    ) -> Result<Finding, AuditError> {
        finding.hit = row.entries.saturating_sub(row.dead_entries);
        let app = self.catalog.name_of(db, row.segment.app_id).await?;
        for &shard in db.shards() {
            let home = crate::db::Home { db: Arc::clone(db), shard };
            let left = MAX_NAMED - finding.attempts.len();
            if left == 0 {
                break;
            }
            for attempt in self.catalog.attempts_in(&home, row.segment.id, left as u32).await? {
                finding.attempts.push(format!("{app}/{}#{}", attempt.instance, attempt.attempt));
            }
        }
        Ok(finding)
    }

    /// Everything in a folder that is none of ours.
    async fn strangers(&self, folder: &str) -> Result<Vec<Finding>, AuditError> {
        let listed = self.store.list(folder).map_ok(|object| stranger(&object));
        Ok(listed.try_collect().await?)
    }
}

/// A listed object.
struct Seen {
    ulid: Ulid,
    byte_length: u64,
    is_known: bool,
}

fn stranger(object: &Listed) -> Finding {
    let what = format!("{} bytes under a name that logtier does not give", object.byte_length);
    Finding::new(FindingKind::Orphan, &object.key, what)
}
