//! An instance: its id, which carries its time, its files, and what PowerJob knows of it.

use std::fmt;
use std::str::FromStr;

use crate::model::{AttemptNo, Instance, InvalidName, Job, Labels, Millis, Outcome};

/// PowerJob's snowflake ids count from 2019-04-21 00:00 in China.
const EPOCH_MILLIS: i64 = 1_555_776_000_000;
/// Below the milliseconds stand 22 bits of data centre, machine and sequence.
const TIME_SHIFT: u32 = 22;

/// What PowerJob stores in place of a log that it does not have, all it ever wrote.
const PLACEHOLDERS: [&[u8]; 2] =
    [b"There is no online log for this job instance", b"There is no local log for this task"];
/// A longer file is none of them; the longest has 118 bytes.
const MAX_PLACEHOLDER_BYTES: usize = 256;

/// A text that is no positive 64-bit number in plain decimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no PowerJob instance id, expected a positive 64-bit number")]
pub struct InvalidInstanceId(String);

/// PowerJob's id of an instance: positive, rising with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(i64);

impl InstanceId {
    pub fn new(id: i64) -> Result<Self, InvalidInstanceId> {
        if id > 0 { Ok(Self(id)) } else { Err(InvalidInstanceId(id.to_string())) }
    }

    pub fn get(self) -> i64 {
        self.0
    }

    /// When the instance was made, to the millisecond.
    pub fn created_at(self) -> Millis {
        Millis::new((self.0 >> TIME_SHIFT) + EPOCH_MILLIS)
    }

    /// The name under which logtier keeps it.
    pub fn instance(self) -> Instance {
        // Digits are always a name; the default cannot happen.
        self.to_string().parse().unwrap_or_else(|_: InvalidName| unreachable!("digits are a name"))
    }

    /// By the name of a stored file (`oms-123.log`), or of a server's local one (`123-stable.log`).
    ///
    /// `None` for anything else; a `-temporary` file is a view of a log that is still growing.
    pub fn of_file(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".log")?;
        let digits = stem.strip_prefix("oms-").or_else(|| stem.strip_suffix("-stable"))?;
        digits.parse().ok()
    }

    /// The name of the file in PowerJob's storage.
    pub fn stored_name(self) -> String {
        format!("oms-{self}.log")
    }

    /// The name of the file in `~/powerjob/server/online_log` of the server that wrote it.
    pub fn stable_name(self) -> String {
        format!("{self}-stable.log")
    }
}

impl FromStr for InstanceId {
    type Err = InvalidInstanceId;

    /// Only what [`fmt::Display`] prints: `+1` and `01` would be second names of one instance.
    fn from_str(text: &str) -> Result<Self, InvalidInstanceId> {
        let invalid = || InvalidInstanceId(text.chars().take(32).collect());
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let id = text.parse().ok().filter(|_| plain).ok_or_else(invalid)?;
        Self::new(id).map_err(|_| invalid())
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a file's bytes are what PowerJob writes where it found no log.
pub fn is_placeholder(body: &[u8]) -> bool {
    let text = body.trim_ascii();
    let text = text.strip_prefix(b"SYSTEM:").unwrap_or(text).trim_ascii_start();
    // A real line that quotes it has a header before it or lines after it.
    body.len() <= MAX_PLACEHOLDER_BYTES
        && !text.contains(&b'\n')
        && PLACEHOLDERS.iter().any(|placeholder| text.starts_with(placeholder))
}

/// The ids that PowerJob gives beside an instance's own. Ids count from 1; 0 and less is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    pub app_id: Option<i64>,
    pub job_id: Option<i64>,
    pub wf_instance_id: Option<i64>,
}

impl InstanceFacts {
    pub fn job(&self) -> Option<Job> {
        self.job_id.filter(|id| *id > 0)?.to_string().parse().ok()
    }

    /// `appId` and `wfInstanceId`, as PowerJob calls them.
    pub fn labels(&self) -> Labels {
        let ids = [("appId", self.app_id), ("wfInstanceId", self.wf_instance_id)];
        let known =
            ids.into_iter().filter_map(|(name, id)| Some((name.to_owned(), id.filter(|id| *id > 0)?.to_string())));
        // Two short labels are within every bound.
        Labels::new(known.collect()).unwrap_or_default()
    }
}

/// PowerJob's `InstanceStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    WaitingDispatch,
    WaitingWorkerReceive,
    Running,
    Failed,
    Succeeded,
    Cancelled,
    /// By hand.
    Stopped,
}

impl Status {
    pub fn from_code(code: i64) -> Option<Self> {
        Some(match code {
            1 => Self::WaitingDispatch,
            2 => Self::WaitingWorkerReceive,
            3 => Self::Running,
            4 => Self::Failed,
            5 => Self::Succeeded,
            9 => Self::Cancelled,
            10 => Self::Stopped,
            _ => return None,
        })
    }

    /// How the instance ended; `None` while it has not.
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Self::WaitingDispatch | Self::WaitingWorkerReceive | Self::Running => None,
            Self::Failed => Some(Outcome::Failed),
            Self::Succeeded => Some(Outcome::Succeeded),
            Self::Cancelled | Self::Stopped => Some(Outcome::Cancelled),
        }
    }
}

/// The attempt that `running_times` tells: how often the instance was started so far. 0 is one that never was.
pub fn attempt_of(running_times: i64) -> AttemptNo {
    AttemptNo::try_from(running_times).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_time() {
        let id: InstanceId = "148084482785968256".parse().expect("an id");
        assert_eq!(id.created_at().to_string(), "2020-06-02T07:14:51.972Z");
        assert_eq!(id.instance().as_str(), "148084482785968256");
        for bad in ["", "0", "-5", "+5", "007", "9223372036854775808", "x", "1 "] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn files_name_their_instance() {
        let id: InstanceId = "621512003157065792".parse().expect("an id");
        for name in [id.stored_name(), id.stable_name()] {
            assert_eq!(InstanceId::of_file(&name), Some(id), "{name}");
        }
        for other in [
            "621512003157065792-temporary.log",
            "621512003157065792.log",
            "oms-1.log.gz",
            "oms-.log",
            "oms-01.log",
            "a.jar",
        ] {
            assert_eq!(InstanceId::of_file(other), None, "{other}");
        }
    }

    #[test]
    fn placeholders_are_no_logs() {
        let yes: [&[u8]; 4] = [
            b"SYSTEM: There is no online log for this job instance.",
            b"SYSTEM: There is no online log for this job instance.\r\n",
            b"There is no local log for this task now, you need to use memory log or see the output of remote log",
            b"SYSTEM: There is no local log for this task now.",
        ];
        for body in yes {
            assert!(is_placeholder(body), "{}", String::from_utf8_lossy(body));
        }
        let no: [&[u8]; 3] = [
            b"",
            b"2026-11-22 10:00:00.000 [10.0.0.1:27777] INFO There is no online log for this job instance.\n",
            b"There is no online log for this job instance.\nbut this\n",
        ];
        for body in no {
            assert!(!is_placeholder(body), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn facts_become_job_and_labels() {
        let facts = InstanceFacts { app_id: Some(1), job_id: Some(42), wf_instance_id: Some(7) };
        assert_eq!(facts.job().expect("a job").as_str(), "42");
        assert_eq!(facts.labels().to_json(), r#"{"appId":"1","wfInstanceId":"7"}"#);
        let none = InstanceFacts { wf_instance_id: Some(0), ..InstanceFacts::default() };
        assert_eq!((none.job(), none.labels().is_empty()), (None, true));
    }

    #[test]
    fn states_and_attempts() {
        let outcome = |code| Status::from_code(code).map(Status::outcome);
        assert_eq!([1, 2, 3].map(outcome), [Some(None); 3]);
        assert_eq!(outcome(4), Some(Some(Outcome::Failed)));
        assert_eq!(outcome(5), Some(Some(Outcome::Succeeded)));
        assert_eq!([9, 10].map(outcome), [Some(Some(Outcome::Cancelled)); 2]);
        assert_eq!(outcome(6), None);
        assert_eq!([-1, 0, 1, 3].map(|times| attempt_of(times).get()), [1, 1, 1, 3]);
    }
}
