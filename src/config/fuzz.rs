//! Hostile configurations: settings or a report of what is wrong, never a panic (see `crate::fuzzing`).

use super::{Config, Env};
use crate::fuzzing::fuzz;

#[test]
fn fuzz_config() {
    let sample = include_str!("../../config/logtier.toml");
    // The sample shows its settings as comments.
    let shown: String = sample.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line))).collect();
    let small = "[hot]\nurl = \"mysql://u:p@h/d\"\nshards = 16\n[[hot.server]]\nurl = \"mysql://h/d\"\nshards = \"0-7\"\n\
                 [cold]\nurl = \"s3://b/p\"\n[archive]\nschedule = \"*/10 * * * *\"\ntimezone = \"Asia/Shanghai\"\n\
                 [[retention.rule]]\nname = \"r\"\napp = \"b*\"\ncold_for = \"7y\"\nkeep_at_least = 10\n";
    let corpus = vec![sample.as_bytes().to_vec(), shown.into_bytes(), small.as_bytes().to_vec()];
    fuzz("config", corpus, |text| {
        match Config::from_toml(&String::from_utf8_lossy(text), "fuzzed.toml", &Env::new()) {
            Ok(_) => "settings".to_owned(),
            Err(problems) => problems.to_string(),
        }
    });
}
