//! `logtier verify`: whether everything that the catalog says is in both tiers really is.
//!
//! Reads and never writes. Memory: one folder's listing, a page of rows, and for the objects that are
//! read whole what a replay takes; findings go out as they are made.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};

use super::compare::{Compared, Needed};
use super::finding::{Finding, FindingKind, Phase, Progress};
use super::{Audit, AuditError};
use crate::catalog::Kind;
use crate::clock;
use crate::cold::{self, Key, KeyKind};
use crate::db::Home;
use crate::model::{App, Millis};

/// Folders that are compared at the same time: a listing takes some 50 ms of waiting.
const FOLDERS_AT_A_TIME: usize = 8;

/// Objects that are read at the same time: enough for a link that is slower than four cores.
const OBJECTS_AT_A_TIME: usize = 4;

/// What to look at.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    pub app: Option<App>,
    /// Objects of finish days and attempts made from then on.
    pub since: Option<Millis>,
}

impl Scope {
    /// The first day of objects; no object is of a day before 1970.
    fn since_day(&self) -> i64 {
        self.since.map_or(0, Millis::day)
    }
}

/// How closely to look.
#[derive(Debug, Clone, Default)]
pub struct VerifySettings {
    pub scope: Scope,
    /// The share of the objects that are read whole, 0 to 1, chosen by chance. With 1 all chunks and
    /// marks are read as well.
    pub read_share: f64,
}

/// What was looked at, and how much was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct VerifySummary {
    pub objects: u64,
    pub objects_read: u64,
    pub bytes_read: u64,
    pub attempts: u64,
    pub marks: u64,
    /// Number of findings by kind.
    pub findings: BTreeMap<&'static str, u64>,
}

impl VerifySummary {
    pub fn has(&self, kind: FindingKind) -> bool {
        self.findings.contains_key(kind.as_str())
    }
}

/// Compares catalog, hot tier and bucket, and hands out each finding.
pub async fn verify(
    audit: &Audit,
    settings: &VerifySettings,
    progress: &Progress,
    mut tell: impl FnMut(&Finding) + Send,
) -> Result<VerifySummary, AuditError> {
    let mut summary = VerifySummary::default();
    let mut found = BTreeMap::new();
    let mut note = |finding: Finding| {
        *found.entry(finding.kind.as_str()).or_insert(0) += 1;
        tell(&finding);
    };
    Verify { audit, settings, progress }.objects(&mut summary, &mut note).await?;
    if settings.scope.app.is_none() {
        Verify { audit, settings, progress }.marks(&mut summary, &mut note).await?;
    }
    Verify { audit, settings, progress }.lines(&mut summary, &mut note).await?;
    summary.findings = found;
    Ok(summary)
}

struct Verify<'a> {
    audit: &'a Audit,
    settings: &'a VerifySettings,
    progress: &'a Progress,
}

type Note<'a> = dyn FnMut(Finding) + Send + 'a;

impl Verify<'_> {
    fn is_full(&self) -> bool {
        self.settings.read_share >= 1.0
    }

    async fn objects(&self, summary: &mut VerifySummary, note: &mut Note<'_>) -> Result<(), AuditError> {
        let scope = &self.settings.scope;
        let (objects, bytes) = self.total().await?;
        let (name, total) = match self.settings.read_share {
            0.0 => ("comparing objects", objects),
            _ => ("reading objects", bytes),
        };
        self.progress.begin(Phase { name, unit: "objects", total });
        let (apps, strange) = match &scope.app {
            Some(app) => (BTreeMap::from([(Key::app_folder(app), Some(app.clone()))]), Compared::default()),
            None => self.audit.apps().await?,
        };
        strange.findings.into_iter().for_each(&mut *note);
        for (app_folder, app) in &apps {
            let (folders, strange) = self.audit.folders(app_folder, app.as_ref(), scope.since_day()).await?;
            strange.findings.into_iter().for_each(&mut *note);
            let compared = futures::stream::iter(&folders)
                .map(|(path, folder)| self.audit.compare(path, folder))
                .buffered(FOLDERS_AT_A_TIME);
            futures::pin_mut!(compared);
            while let Some(compared) = compared.try_next().await? {
                summary.objects += compared.objects;
                compared.findings.into_iter().for_each(&mut *note);
                self.read(compared.needed, summary, note).await?;
            }
        }
        Ok(())
    }

    /// Of all objects in the scope, and their bytes.
    async fn total(&self) -> Result<(u64, u64), AuditError> {
        let (mut objects, mut bytes) = (0, 0);
        for db in self.audit.catalog.cluster.servers() {
            let app_id = match &self.settings.scope.app {
                Some(app) => match self.audit.catalog.find_name(db, Kind::App, app.as_str()).await? {
                    Some(app_id) => Some(app_id),
                    None => continue,
                },
                None => None,
            };
            let since = self.settings.scope.since_day();
            let (some, their_bytes) = self.audit.catalog.audited_total(db, app_id, since, u32::MAX).await?;
            objects += some;
            bytes += their_bytes;
        }
        Ok((objects, bytes))
    }

    /// Reads the chosen ones of these objects.
    async fn read(
        &self,
        needed: Vec<Needed>,
        summary: &mut VerifySummary,
        note: &mut Note<'_>,
    ) -> Result<(), AuditError> {
        let share = self.settings.read_share;
        if share <= 0.0 {
            self.progress.add(needed.len() as u64, needed.len() as u64);
            return Ok(());
        }
        let reads = needed.into_iter().map(|object| async move {
            let bytes = object.row.segment.byte_length;
            let is_chosen = f64::from(clock::random_u32()) < share * f64::from(u32::MAX) || self.is_full();
            let finding = if is_chosen { self.audit.read_whole(&object).await? } else { None };
            self.progress.add(bytes, 1);
            Ok::<_, AuditError>((is_chosen.then_some(bytes), finding))
        });
        let reads = futures::stream::iter(reads).buffered(OBJECTS_AT_A_TIME);
        futures::pin_mut!(reads);
        while let Some((bytes, finding)) = reads.try_next().await? {
            summary.objects_read += u64::from(bytes.is_some());
            summary.bytes_read += bytes.unwrap_or(0);
            finding.into_iter().for_each(&mut *note);
        }
        Ok(())
    }

    /// A mark that cannot be read would be forgotten by a rebuild.
    async fn marks(&self, summary: &mut VerifySummary, note: &mut Note<'_>) -> Result<(), AuditError> {
        self.progress.begin(Phase { name: "looking at marks", unit: "marks", total: 0 });
        let mut listed = self.audit.store.list(Key::marks_folder());
        while let Some(object) = listed.try_next().await? {
            summary.marks += 1;
            self.progress.add(0, 1);
            if !matches!(object.key.kind(), KeyKind::Mark(_)) {
                let what = "an object among the marks that is none";
                note(Finding::new(FindingKind::Orphan, &object.key, what));
            } else if self.is_full() {
                match super::marks::read(&self.audit.store, &object.key).await {
                    Ok(_) | Err(cold::Error::NotFound { .. }) => {}
                    Err(cold::Error::Corrupt { what, .. }) => {
                        note(Finding::new(FindingKind::Damaged, &object.key, what));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    async fn lines(&self, summary: &mut VerifySummary, note: &mut Note<'_>) -> Result<(), AuditError> {
        let cluster = &self.audit.catalog.cluster;
        let name = "looking at line ranges";
        self.progress.begin(Phase { name, unit: "attempts", total: cluster.shard_count() as u64 });
        for db in cluster.servers() {
            for &shard in db.shards() {
                let home = Home { db: db.clone(), shard };
                let scope = &self.settings.scope;
                summary.attempts += self.audit.check_lines(&home, scope, self.is_full(), self.progress, note).await?;
                self.progress.add(1, 0);
            }
        }
        Ok(())
    }
}
