//! The ids of attempts that were written to lately.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::catalog::NaturalKey;
use crate::db::Shard;
use crate::model::AttemptId;

/// About 6 MB at 100 bytes a key, twice.
const GENERATION: usize = 32_768;

/// Only a hint: the transaction takes the row's own id, whatever was offered. But InnoDB inserts the row of an
/// unknown id and undoes that when it finds the natural key; a known id spares it both.
#[derive(Default)]
pub(super) struct Ids(Mutex<Generations>);

type Generation = HashMap<(Shard, NaturalKey), AttemptId>;

/// What was not written to while `young` filled goes with `old`.
#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

impl Ids {
    pub(super) fn get(&self, shard: Shard, key: &NaturalKey) -> Option<AttemptId> {
        let ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (shard, key.clone());
        ids.young.get(&place).or_else(|| ids.old.get(&place)).copied()
    }

    pub(super) fn insert(&self, shard: Shard, key: NaturalKey, id: AttemptId) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.young.len() >= GENERATION {
            ids.old = std::mem::take(&mut ids.young);
        }
        ids.young.insert((shard, key), id);
    }
}
