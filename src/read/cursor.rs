//! Where a page ended, in a form that clients carry but do not look into.
//!
//! A cursor names an attempt and a line number, which never change: so it survives the move to the
//! cold tier and a restart, and can be used on any daemon.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::model::AttemptNo;

/// The next line to look at of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub attempt: AttemptNo,
    /// Forwards the first line of the next page, backwards the line behind its last.
    pub line: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that this service gave")]
pub struct InvalidCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(format!("1:{}:{}", self.attempt, self.line)))
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let text = String::from_utf8(bytes).map_err(|_| InvalidCursor)?;
        match text.split(':').collect::<Vec<_>>()[..] {
            ["1", attempt, line] => Ok(Self {
                attempt: attempt.parse().map_err(|_| InvalidCursor)?,
                line: line.parse().map_err(|_| InvalidCursor)?,
            }),
            _ => Err(InvalidCursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_others() {
        let cursor = Cursor { attempt: AttemptNo::FIRST, line: 12_345 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "x", "12", "MTox"] {
            assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad}");
        }
    }
}
