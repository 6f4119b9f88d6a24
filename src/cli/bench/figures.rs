//! The figures of all rounds, printed as a table of medians.

use serde_json::{Value, json};

/// What a figure counts; says how it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    BytesPerSecond,
    PerSecond,
    Seconds,
    /// This divided by its baseline, both of the same round.
    Ratio,
    Count,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Bytes => format!("{:.2} MB", value / 1e6),
            Self::BytesPerSecond => format!("{:.1} MB/s", value / 1e6),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Seconds if value < 1.0 => format!("{:.2} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::Ratio => format!("{value:.2} x"),
            Self::Count => format!("{value:.0}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes/s",
            Self::PerSecond => "1/s",
            Self::Seconds => "s",
            Self::Ratio => "ratio",
            Self::Count => "count",
        }
    }
}

struct Row {
    stage: &'static str,
    name: String,
    unit: Unit,
    values: Vec<f64>,
}

/// Figures by stage and name, in the order of their first mention.
#[derive(Default)]
pub(super) struct Figures {
    rows: Vec<Row>,
}

impl Figures {
    pub(super) fn add(&mut self, stage: &'static str, name: impl Into<String>, unit: Unit, value: f64) {
        let name = name.into();
        match self.rows.iter_mut().find(|row| row.stage == stage && row.name == name) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row { stage, name, unit, values: vec![value] }),
        }
    }

    /// The latencies of many calls: median, 99th percentile and worst.
    pub(super) fn add_latencies(&mut self, stage: &'static str, name: &str, mut seconds: Vec<f64>) {
        if seconds.is_empty() {
            return;
        }
        seconds.sort_by(f64::total_cmp);
        for (label, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            self.add(stage, format!("{name}, {label}"), Unit::Seconds, percentile(&seconds, share));
        }
    }

    /// A line a figure: the median of the rounds, then the least and the greatest.
    pub(super) fn table(&self) -> Vec<String> {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let lines = self.rows.iter().map(|Row { stage, name, unit, values }| {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let shown = unit.show(percentile(&sorted, 0.5));
            let range = match sorted.as_slice() {
                [] | [_] => String::new(),
                [first, .., last] => format!("  ({} .. {})", unit.show(*first), unit.show(*last)),
            };
            format!("{stage:<8} {name:<width$}  {shown:>12}{range}")
        });
        lines.collect()
    }

    pub(super) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|Row { stage, name, unit, values }| {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let median = percentile(&sorted, 0.5);
            json!({"stage": stage, "name": name, "unit": unit.name(), "median": median, "rounds": values})
        });
        Value::Array(rows.collect())
    }
}

/// The nearest-rank percentile of sorted values; 0 of none.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(percentile(&sorted, 0.5), 2.0);
        assert_eq!(percentile(&sorted, 0.99), 4.0);
        assert_eq!(percentile(&sorted, 0.0), 1.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_table_shows_the_median_of_the_rounds_and_their_range() {
        let mut figures = Figures::default();
        for value in [3.0, 1.0, 2.0] {
            figures.add("ingest", "against the loop", Unit::Ratio, value);
        }
        assert_eq!(figures.table(), ["ingest   against the loop        2.00 x  (1.00 x .. 3.00 x)"]);
        assert_eq!(figures.json()[0]["median"], 2.0);
    }
}
