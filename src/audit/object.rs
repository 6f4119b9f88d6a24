//! One object, read whole and compared with the parts that the catalog has in it.

use std::collections::HashMap;
use std::sync::Arc;

use super::compare::Needed;
use super::finding::{Finding, FindingKind};
use super::{Audit, AuditError};
use crate::catalog::{AuditedSegment, PartKey, PartSpot};
use crate::cold::segment::{Entry, Index, Replay, Replayed};
use crate::cold::{self, Key};
use crate::db::{Db, Home};

/// By attempt and lines: an attempt may have several entries in an object.
type Parts = HashMap<PartKey, PartSpot>;

impl Audit {
    /// Reads an object and proves that every part that the catalog has in it stands where it says.
    pub(super) async fn read_whole(&self, needed: &Needed) -> Result<Option<Finding>, AuditError> {
        let db = &self.catalog.cluster.servers()[needed.server];
        let Some(first) = self.look(db, &needed.row, &needed.key).await? else { return Ok(None) };
        tracing::debug!(object = %needed.key, first.what, "looking again");
        // It may have been given up since, or a part of it moved.
        let row = self.catalog.audited_segment(db, needed.row.segment.id).await?;
        let Some(row) = row.filter(AuditedSegment::is_needed) else { return Ok(None) };
        let Some(wrong) = self.look(db, &row, &needed.key).await? else { return Ok(None) };
        Ok(Some(self.with_attempts(db, &row, Finding::new(wrong.kind, &needed.key, wrong.what)).await?))
    }

    async fn look(&self, db: &Arc<Db>, row: &AuditedSegment, key: &Key) -> Result<Option<Wrong>, AuditError> {
        let mut parts = self.parts_of(db, row).await?;
        match self.replay(row, key, &mut parts).await {
            Ok(None) => {}
            Ok(Some(what)) => return Ok(Some(Wrong { kind: FindingKind::Damaged, what })),
            Err(error) => return Wrong::of(error).map(Some),
        }
        // What was given up while the object was read needs no place in it.
        let still = if parts.is_empty() { Parts::new() } else { self.parts_of(db, row).await? };
        let lost = parts.into_iter().find(|(key, part)| still.get(key) == Some(part));
        Ok(lost.map(|(_, part)| {
            let what = format!("it does not hold lines {} of attempt {}", part.lines, part.id.get());
            Wrong { kind: FindingKind::Damaged, what }
        }))
    }

    async fn parts_of(&self, db: &Arc<Db>, row: &AuditedSegment) -> Result<Parts, AuditError> {
        let mut parts = HashMap::new();
        for &shard in db.shards() {
            let home = Home { db: Arc::clone(db), shard };
            let spots = self.catalog.part_spots(&home, row.segment.id).await?;
            parts.extend(spots.into_iter().map(|part| (PartKey::new(part.id, part.lines), part)));
        }
        Ok(parts)
    }

    /// Takes out of `parts` those that the object holds; answers what is wrong with one of them.
    async fn replay(&self, row: &AuditedSegment, key: &Key, parts: &mut Parts) -> Result<Option<String>, cold::Error> {
        let mut replay = Replay::open(&self.store, key, row.segment.byte_length, row.hash).await?;
        let mut wrong = None;
        while let Some(replayed) = replay.next().await? {
            if let Replayed::Attempt(entry) = replayed
                && let Some(part) = parts.remove(&PartKey::new(entry.attempt.id, entry.lines()))
            {
                wrong = wrong.or(differs(replay.index(), &entry, &part)?);
            }
        }
        Ok(wrong)
    }
}

/// What is wrong with an object.
struct Wrong {
    kind: FindingKind,
    what: String,
}

impl Wrong {
    /// Damage is a finding; a store that cannot be asked is an error.
    fn of(error: cold::Error) -> Result<Self, AuditError> {
        match error {
            cold::Error::Corrupt { what, .. } => Ok(Self { kind: FindingKind::Damaged, what }),
            cold::Error::NotFound { .. } => {
                Ok(Self { kind: FindingKind::Missing, what: "the bucket has no such object".to_owned() })
            }
            error => Err(error.into()),
        }
    }
}

fn differs(index: &Index, entry: &Entry, part: &PartSpot) -> Result<Option<String>, cold::Error> {
    let place = index.place(entry)?;
    let same = entry.lines() == part.lines
        && (part.lines.is_empty()
            || (place.byte_offset, place.byte_length, place.skip) == (part.byte_offset, part.byte_length, part.skip));
    Ok((!same).then(|| {
        let id = part.id.get();
        format!(
            "lines {} of attempt {id} do not stand where the catalog says; the object has {}",
            part.lines,
            entry.lines()
        )
    }))
}
