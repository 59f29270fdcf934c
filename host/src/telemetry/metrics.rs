//! The one table of metrics: name, unit, labels (bounded) and meaning of each.
//!
//! A counter or gauge is one atomic, or a few where every request counts. Looking up a member of a family takes a lock that all its users share, so whoever counts
//! on every request keeps the member's clone instead (`get_or_create(..).clone()` once per host, not per request).
//! A histogram (`histogram.rs`) is for what is rare beside a hit.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::histogram::Times;
use super::striped::Striped;

/// A counter that every request adds to.
pub type BusyCounter = Counter<u64, Striped>;

/// Label: a policy and the phase it failed in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PolicyLabels {
    /// Name of the policy file.
    pub policy: String,
    /// `error`, `trap`, `time`, `memory`, `calls`, `invalid`, `quarantine`, `load`.
    pub kind: String,
}

/// Label: an origin of hosts.json and what became of a request to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OriginLabels {
    /// Name in hosts.json.
    pub origin: String,
    /// `ok`, `connect`, `timeout`, `reset`, `refused`, `status`, `invalid`, `client`.
    pub outcome: String,
}

/// Label: a virtual host and the cache's word for the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HostLabels {
    /// The pattern of hosts.json.
    pub host: String,
    /// `hit`, `miss`, `stale`, `revalidated`, `bypass`, `policy`, `error`.
    pub cache: String,
}

/// Label: a virtual host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SiteLabels {
    /// The pattern of hosts.json.
    pub host: String,
}

/// Label: the limit of time that a connection exceeded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TimeoutLabels {
    /// `head`, `idle`, `write` (the socket took nothing), `window` (HTTP/2 streams got no window).
    pub limit: &'static str,
}

/// Label: the limit that a connection was closed at once by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// `connections`, `address`.
    pub limit: &'static str,
}

/// Label: the flood of frames that an HTTP/2 connection was ended for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FloodLabels {
    /// The kind of frames: `reset`, `ping`, `settings` and others; `protocol` for limits of the protocol's own.
    pub kind: &'static str,
}

/// Label: how a TLS handshake ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HandshakeLabels {
    /// `full`, `resumed`, `failed`, `unknown-name`, `challenge`; of HTTP/3 also `retry` (asked to show its address) and
    /// `refused` (too many at once).
    pub outcome: &'static str,
}

/// Label: a name that a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NameLabels {
    /// The name.
    pub name: String,
}

macro_rules! table {
    ($($field:ident : $type:ty, $name:literal, $help:literal;)*) => {
        /// Every metric, with its handle. Cheap to update, shared by all rooms.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: $type,)*
        }

        impl Metrics {
            /// The handles and the registry that renders them.
            pub fn new() -> (Arc<Self>, Registry) {
                let metrics = Self::default();
                let mut registry = Registry::with_prefix("proxyhost");
                registry.register("build", "The program's version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
                $(registry.register($name, $help, metrics.$field.clone());)*
                (Arc::new(metrics), registry)
            }
        }
    };
}

/// The media type of what `render` makes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics in the OpenMetrics text format, which Prometheus reads.
pub fn render(registry: &Registry) -> String {
    let mut text = String::with_capacity(8 << 10);
    // Writing into a string cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}

table! {
    requests: Family<HostLabels, BusyCounter>, "proxy_requests", "Requests answered, by host and by the cache's word for the answer";
    response_bytes: BusyCounter, "proxy_response_bytes", "Bytes of bodies sent to clients";
    connections: Gauge, "listener_connections", "Connections open now";
    connections_accepted: Counter, "listener_connections_accepted", "Connections accepted";
    connections_refused: Family<RefusedLabels, Counter>, "listener_connections_refused", "Connections closed at once because too many were open, by limit";
    floods: Family<FloodLabels, Counter>, "listener_http2_floods", "HTTP/2 connections ended for a flood of frames, by kind";
    connection_timeouts: Family<TimeoutLabels, Counter>, "listener_connection_timeouts", "Connections closed because the peer took too long, by limit";
    handshakes: Family<HandshakeLabels, Counter>, "tls_handshakes", "TLS handshakes, by outcome";
    certificate_seconds: Family<NameLabels, Gauge>, "tls_certificate_expiry_timestamp_seconds", "When the certificate for a name ends, in seconds since 1970";
    certificate_failures: Counter, "tls_certificate_failures", "Certificates that could not be read or issued";
    accept_errors: Counter, "listener_accept_errors", "Failed accepts, out of files for example";
    log_dropped: Counter, "telemetry_log_records_dropped", "Access-log records dropped because stdout did not keep up";
    stderr_dropped: Counter, "telemetry_stderr_lines_dropped", "Structured lines dropped because stderr did not keep up";
    cache_disk_bytes: Gauge, "cache_disk_bytes", "Bytes that bodies and inline records take on disk";
    cache_entries: Gauge, "cache_entries", "Entries in the index, about: what was used or replaced lately may count more than once";
    cache_memory_bytes: Gauge, "cache_memory_bytes", "Bytes that the memory tier holds";
    cache_index_reads: Times, "cache_index_read_seconds", "How long the index took to look for what memory did not have";
    cache_evictions: Counter, "cache_evictions", "Entries evicted from disk";
    cache_host_disk_bytes: Family<SiteLabels, Gauge>, "cache_host_disk_bytes", "Bytes that bodies and inline records take on disk, by host";
    cache_host_disk_budget_bytes: Family<SiteLabels, Gauge>, "cache_host_disk_budget_bytes", "Budgets of hosts on disk, of those that have one";
    cache_host_evictions: Family<SiteLabels, Counter>, "cache_host_evictions", "Entries evicted because their host was over its budget";
    cache_pinned_entries: Gauge, "cache_pinned_entries", "Entries that are pinned or mirrored, as they were last counted";
    cache_pinned_bytes: Gauge, "cache_pinned_bytes", "Bytes of the bodies that are pinned or mirrored, as they were last counted";
    cache_pinned_evictions: Counter, "cache_pinned_evictions", "Pinned entries that were evicted all the same, since there was nothing else";
    cache_fills: Gauge, "cache_fills_active", "Fills under way";
    cache_corruptions: Counter, "cache_corrupt_pieces", "Records and slices whose checksum did not match: each became a miss";
    digest_mismatches: Counter, "proxy_digest_mismatches", "Bodies that were not what their origin's digest said: broken off and not kept";
    cache_scrubbed_bytes: Counter, "cache_scrubbed_bytes", "Bytes on disk that were read to check them";
    cache_disk_errors: Counter, "cache_disk_errors", "Reads and writes of the cache folder that failed";
    purges: Counter, "purge_requests", "Purges carried out";
    cache_tags_left_out: Counter, "cache_tags_left_out", "Tags of responses that are not kept: too many or too long";
    refetched: Counter, "purge_refetched", "Entries that were fetched again after a purge that refreshes";
    not_refetched: Counter, "purge_not_refetched", "Entries that were not: the host is gone, the policy or the origin refused, or it cannot be told how they were asked for";
    warmed: Counter, "proxy_warmed", "Things that were fetched into the cache by a warm-up, a pin or a mirror";
    not_warmed: Counter, "proxy_not_warmed", "Things that a warm-up, a pin or a mirror could not get into the cache";
    mirror_objects: Family<SiteLabels, Gauge>, "proxy_mirror_objects", "Objects of a mirrored host's bucket or folder, as it was last listed";
    mirror_bytes: Family<SiteLabels, Gauge>, "proxy_mirror_bytes", "Bytes of the objects of a mirrored host's bucket or folder, as it was last listed";
    compressed: Counter, "proxy_compressed", "Compressed forms of kept responses that were made";
    not_compressed: Counter, "proxy_not_compressed", "Compressed forms that were begun and left: not smaller, or not to be kept";
    not_decompressed: Counter, "proxy_not_decompressed", "Responses that were coded as their clients do not take it, and could not be decompressed: 502 if the body is broken or grows beyond measure, 503 if too many were at once";
    policy_calls: BusyCounter, "policy_calls", "Phase calls of policies";
    policy_failures: Family<PolicyLabels, Counter>, "policy_failures", "Failed phase calls and loads, by policy and kind";
    policy_instances: Counter, "policy_instances_created", "Instances of policies created";
    origin_requests: Family<OriginLabels, Counter>, "origin_requests", "Requests to origins, by outcome";
    origin_bytes: Counter, "origin_response_bytes", "Bytes of bodies read from origins";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_metrics_are_rendered_under_the_prefix() {
        let (metrics, registry) = Metrics::new();
        metrics.connections_accepted.inc_by(3);
        metrics.connection_timeouts.get_or_create(&TimeoutLabels { limit: "head" }).inc();
        let text = render(&registry);
        assert!(text.contains("proxyhost_listener_connections_accepted_total 3\n"), "{text}");
        assert!(text.contains("proxyhost_listener_connection_timeouts_total{limit=\"head\"} 1\n"), "{text}");
        assert!(text.contains("proxyhost_build_info{version="), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn names_are_distinct_and_of_the_house_style() {
        let (_, registry) = Metrics::new();
        let text = render(&registry);
        let mut names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "two metrics share a name");
        for name in names {
            assert!(
                name.strip_prefix("proxyhost_")
                    .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
            );
        }
    }
}
