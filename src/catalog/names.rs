//! Numbers for the names of apps, jobs and rules, so that a catalog row holds four bytes of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Catalog, column, sql};
use crate::db::{Db, Error, Result};

/// What a name names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    App = 1,
    Job = 2,
    Rule = 3,
}

/// Names and numbers that this process has seen. A number, once given, stays: the only cache that
/// the catalog allows. Emptied when a client invents names without end.
#[derive(Default)]
pub struct Names {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    numbers: HashMap<(usize, Kind, Arc<str>), i32>,
    names: HashMap<(usize, i32), Arc<str>>,
}

/// About 10 MB at 50 bytes a name, twice.
const MAX_CACHED: usize = 50_000;

impl Names {
    fn number(&self, db: &Db, kind: Kind, name: &str) -> Option<i32> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.numbers.get(&(db.number(), kind, Arc::from(name))).copied()
    }

    fn name(&self, db: &Db, number: i32) -> Option<Arc<str>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.names.get(&(db.number(), number)).cloned()
    }

    fn insert(&self, db: &Db, kind: Kind, name: &str, number: i32) {
        let name: Arc<str> = name.into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.names.len() >= MAX_CACHED {
            *known = Known::default();
        }
        known.names.insert((db.number(), number), Arc::clone(&name));
        known.numbers.insert((db.number(), kind, name), number);
    }
}

impl Catalog {
    /// The number of a name, which gets one if it has none. Numbers are per server.
    pub async fn name_number(&self, db: &Arc<Db>, kind: Kind, name: &str) -> Result<i32> {
        loop {
            if let Some(number) = self.find_name(db, kind, name).await? {
                return Ok(number);
            }
            let owned = name.to_owned();
            let insert = db.run_tx("catalog::name_number", move |tx| {
                let owned = owned.clone();
                Box::pin(async move {
                    let insert = sqlx::query(sql::insert_name()).bind(kind as i32).bind(owned.as_bytes().to_vec());
                    insert.execute(tx).await?;
                    Ok::<_, Error>(())
                })
            });
            match insert.await {
                // Someone else was first with this name or this number; look again.
                Ok(()) | Err(Error::Duplicate(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The number of a name that may not have one. Absence is not remembered.
    pub async fn find_name(&self, db: &Arc<Db>, kind: Kind, name: &str) -> Result<Option<i32>> {
        if let Some(number) = self.names.number(db, kind, name) {
            return Ok(Some(number));
        }
        let query = sqlx::query_scalar(sql::find_name()).bind(kind as i32).bind(name.as_bytes());
        let found: Option<i32> = query.fetch_optional(db.pool()).await?;
        if let Some(number) = found {
            self.names.insert(db, kind, name, number);
        }
        Ok(found)
    }

    /// The name behind a number that a row carries.
    pub async fn name_of(&self, db: &Arc<Db>, number: i32) -> Result<Arc<str>> {
        if let Some(name) = self.names.name(db, number) {
            return Ok(name);
        }
        let row = sqlx::query(sql::name_of()).bind(number).fetch_optional(db.pool()).await?;
        let row = row.ok_or_else(|| Error::Row(format!("name {number} is missing")))?;
        let kind = match column::<i32>(&row, "kind")? {
            1 => Kind::App,
            2 => Kind::Job,
            _ => Kind::Rule,
        };
        let name = super::text(&row, "name")?;
        self.names.insert(db, kind, &name, number);
        Ok(name.into())
    }

    /// The parsed name behind a number; 0 stands for "none".
    pub async fn optional_name<N: std::str::FromStr>(&self, db: &Arc<Db>, number: i32) -> Result<Option<N>> {
        if number == 0 {
            return Ok(None);
        }
        let name = self.name_of(db, number).await?;
        name.parse().map(Some).map_err(|_| Error::Row(format!("name {number} is not a name")))
    }
}
