//! What a reader asks for that can be said of many records at once.

use super::{Level, LevelSet, Timestamp};

/// The conditions by which chunks and frames are skipped unread; all must hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// This level or above.
    pub level: Option<Level>,
    /// From this moment on.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
}

impl Bounds {
    /// Whether nothing can be skipped.
    pub fn is_open(self) -> bool {
        self == Self::default()
    }

    /// Whether a record that meets them may be among records of which this is known. Least and
    /// largest timestamp may be further apart than what is there, and are `None` where nobody knows.
    pub fn may_hold(self, levels: LevelSet, ts: Option<(Timestamp, Timestamp)>) -> bool {
        self.level.is_none_or(|least| levels.may_hold(least))
            && ts.is_none_or(|(min, max)| {
                self.since.is_none_or(|since| max >= since) && self.until.is_none_or(|until| min < until)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_keep_what_may_match() {
        let ts = |nanos| Timestamp::from_nanos(nanos);
        let mut levels = LevelSet::EMPTY;
        levels.insert(Some(Level::Warn));
        let at = Some((ts(10), ts(20)));
        let check = |bounds: Bounds, expected: bool| assert_eq!(bounds.may_hold(levels, at), expected, "{bounds:?}");
        check(Bounds::default(), true);
        check(Bounds { level: Some(Level::Warn), ..Bounds::default() }, true);
        check(Bounds { level: Some(Level::Error), ..Bounds::default() }, false);
        check(Bounds { since: Some(ts(20)), ..Bounds::default() }, true);
        check(Bounds { since: Some(ts(21)), ..Bounds::default() }, false);
        check(Bounds { until: Some(ts(10)), ..Bounds::default() }, false);
        check(Bounds { until: Some(ts(11)), ..Bounds::default() }, true);
        assert!(Bounds { until: Some(ts(0)), ..Bounds::default() }.may_hold(levels, None), "nobody knows");
        let unknown = levels.union(LevelSet::UNKNOWN);
        assert!(Bounds { level: Some(Level::Fatal), ..Bounds::default() }.may_hold(unknown, at));
    }
}
