//! What can go wrong between a daemon and its bucket, told apart by what the caller must do.

use std::error::Error as StdError;

use super::keys::Key;

pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync>;

/// A failure of the cold tier. "Not there" is only said when the store said so (invariant I8).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store answered, and has no such object.
    #[error("object \"{key}\" is not in the cold store")]
    NotFound { key: Key },
    /// The store cannot be asked now; the same call may succeed later.
    #[error("{action} \"{key}\": cold store is unavailable")]
    Unavailable { action: &'static str, key: Key, source: Source },
    /// The store refuses: wrong credentials, missing bucket, a request it does not understand.
    #[error("{action} \"{key}\": cold store refuses")]
    Refused { action: &'static str, key: Key, source: Source },
    /// The object is there, but its bytes are not what was written or recorded.
    #[error("object \"{key}\" is damaged: {what}")]
    Corrupt { key: Key, what: String },
    /// The settings do not describe a store.
    #[error("open cold store")]
    Settings { source: Source },
    /// The caller broke a rule of this module; a bug, not a state of the world.
    #[error("invalid use of the cold tier: {what}")]
    Invalid { what: String },
}

impl Error {
    /// Whether trying again, unchanged, cannot help.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Unavailable { .. })
    }

    pub(super) fn corrupt(key: &Key, what: impl Into<String>) -> Self {
        Self::Corrupt { key: key.clone(), what: what.into() }
    }

    pub(super) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    /// The answer or its stream broke off before all promised bytes were there.
    pub(super) fn cut_short(key: &Key, got: u64, expected: u64) -> Self {
        let source = format!("the answer ended after {got} of {expected} bytes").into();
        Self::Unavailable { action: "read", key: key.clone(), source }
    }

    /// Sorts an error of the store's client by what it means for the caller.
    pub(super) fn from_store(action: &'static str, key: &Key, error: object_store::Error) -> Self {
        use object_store::Error as Store;
        let key = key.clone();
        match error {
            Store::NotFound { source, .. } if !says(&*source, "NoSuchBucket") => Self::NotFound { key },
            Store::Generic { ref source, .. } if is_out_of_range(&**source) => {
                Self::Corrupt { key, what: format!("it is shorter than recorded ({error})") }
            }
            Store::Generic { ref source, .. } if !refuses(&**source) => {
                Self::Unavailable { action, key, source: error.into() }
            }
            // A conflict or a changed object is a race inside the store, not a refusal.
            Store::Precondition { .. }
            | Store::NotModified { .. }
            | Store::AlreadyExists { .. }
            | Store::JoinError { .. } => Self::Unavailable { action, key, source: error.into() },
            _ => Self::Refused { action, key, source: error.into() },
        }
    }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn says(error: &(dyn StdError + 'static), words: &str) -> bool {
    chain(error).any(|error| error.to_string().contains(words))
}

/// The store's client keeps its error types to itself, so ranges beyond the object are known by
/// their words; a test in `store.rs` holds them for the stores that need no server.
fn is_out_of_range(error: &(dyn StdError + 'static)) -> bool {
    let shorter = |error: &(dyn StdError + 'static)| {
        let text = error.to_string();
        // A store that answers with fewer bytes than asked for.
        text.starts_with("Requested ") && text.contains(", got ")
    };
    chain(error).any(shorter) || says(error, "Wanted range starting at") || says(error, "status code: 416")
}

/// Whether the store understood who and what, and says no: a 4xx other than "slow down", 501, a
/// redirect to another region, or a folder that may not be touched.
fn refuses(error: &(dyn StdError + 'static)) -> bool {
    let denied = |error: &(dyn StdError + 'static)| {
        error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
    };
    if chain(error).any(denied) || says(error, "redirect without LOCATION") {
        return true;
    }
    let status = chain(error).find_map(|error| {
        let text = error.to_string();
        let (_, rest) = text.split_once("status code: ")?;
        rest.get(..3)?.parse::<u16>().ok()
    });
    matches!(status, Some(300..=407 | 409..=428 | 430..=499 | 501))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(words: &str) -> Error {
        let error = object_store::Error::Generic { store: "S3", source: words.into() };
        Error::from_store("read", &Key::cluster(), error)
    }

    #[test]
    fn statuses_tell_a_refusal_from_an_outage() {
        let status = |code: &str| generic(&format!("Server returned non-2xx status code: {code}: why"));
        for refused in ["400 Bad Request", "405 Method Not Allowed", "501 Not Implemented", "301 Moved"] {
            assert!(matches!(status(refused), Error::Refused { .. }), "{refused}");
        }
        for transient in ["500 Internal Server Error", "503 Slow Down", "429 Too Many Requests", "408 Timeout"] {
            assert!(matches!(status(transient), Error::Unavailable { .. }), "{transient}");
        }
        assert!(matches!(status("416 Range Not Satisfiable"), Error::Corrupt { .. }));
        assert!(!generic("connection reset").is_permanent());
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        let missing = |body: &'static str| {
            let error = object_store::Error::NotFound { path: "x".into(), source: body.into() };
            Error::from_store("read", &Key::cluster(), error)
        };
        assert!(matches!(missing("<Code>NoSuchKey</Code>"), Error::NotFound { .. }));
        assert!(matches!(missing("<Code>NoSuchBucket</Code>"), Error::Refused { .. }));
    }
}
