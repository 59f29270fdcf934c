//! A histogram of times without a lock: an atomic for each bucket. Those of prometheus-client lock a mutex at every observation,
//! which all workers would share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Upper bounds of the buckets in microseconds; a last one has what is longer.
const BOUNDS_US: [u64; 20] =
    [1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 500, 1_000, 5_000, 10_000, 100_000, 1_000_000];

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    nanoseconds: AtomicU64,
}

/// Times, in seconds for who reads them.
#[derive(Clone, Debug, Default)]
pub struct Times(Arc<Buckets>);

impl Times {
    /// Counts one.
    pub fn observe(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| bound * 1000 < nanoseconds);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.0.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let seconds = self.0.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        encoder.encode_histogram::<NoLabelSet>(seconds, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_time_counts_in_the_first_bucket_that_it_fits_and_in_all_above() {
        let times = Times::default();
        for us in [1, 2, 19, 20, 21, 5_000_000] {
            times.observe(Duration::from_micros(us));
        }
        let mut registry = Registry::default();
        registry.register("read_seconds", "Reads", times);
        let text = super::super::metrics::render(&registry);
        for line in [
            "read_seconds_bucket{le=\"0.000001\"} 1\n",
            "read_seconds_bucket{le=\"0.000015\"} 2\n",
            "read_seconds_bucket{le=\"0.00002\"} 4\n",
            "read_seconds_bucket{le=\"0.00003\"} 5\n",
            "read_seconds_bucket{le=\"+Inf\"} 6\n",
            "read_seconds_count 6\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
