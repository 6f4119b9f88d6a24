//! What a process has used, from Linux's `/proc`.

use std::fs;
use std::time::Duration;

/// Ticks a second of the times in `/proc/PID/stat`: USER_HZ, 100 on every Linux (proc_pid_stat(5)).
const TICKS_PER_SECOND: u64 = 100;

/// A process that is measured; all figures are zero where it cannot be looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process(u32);

impl Process {
    pub(super) fn new(pid: u32) -> Self {
        Self(pid)
    }

    /// User and system time of all its threads since it began.
    pub(super) fn cpu(self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th fields behind it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// The most memory that was resident since it began or since [`Process::forget_peak`], in bytes.
    pub(super) fn peak_memory(self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Lets the next peak be counted from now; without the right to do so it goes on from the old one.
    pub(super) fn forget_peak(self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.0), "5");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let me = Process::new(std::process::id());
        assert!(me.peak_memory() > 1 << 20);
        assert_eq!(Process::new(u32::MAX).cpu(), Duration::ZERO);
    }
}
