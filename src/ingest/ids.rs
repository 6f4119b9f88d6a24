//! The attempts that were written to lately: their ids and jobs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::catalog::NaturalKey;
use crate::db::Shard;
use crate::model::AttemptId;

/// About 6 MB at 100 bytes a key, twice.
const GENERATION: usize = 32_768;

/// Only a hint: the transaction takes the row's own id, whatever was offered. But InnoDB inserts the row of an
/// unknown id and undoes that when it finds the natural key; a known id spares it both, and reading the row back.
#[derive(Default)]
pub(super) struct Ids(Mutex<Generations>);

type Generation = HashMap<(Shard, NaturalKey), Recalled>;

/// What the row of an attempt says, and will say for good: a job that is 0 alone may change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recalled {
    pub(super) id: AttemptId,
    pub(super) job_id: i32,
}

/// What was not written to while `young` filled goes with `old`.
#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

impl Ids {
    pub(super) fn get(&self, shard: Shard, key: &NaturalKey) -> Option<Recalled> {
        let ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (shard, key.clone());
        ids.young.get(&place).or_else(|| ids.old.get(&place)).copied()
    }

    pub(super) fn insert(&self, shard: Shard, key: NaturalKey, recalled: Recalled) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.young.len() >= GENERATION {
            ids.old = std::mem::take(&mut ids.young);
        }
        ids.young.insert((shard, key), recalled);
    }
}
