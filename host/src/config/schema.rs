//! hosts.json as it is written: every field with its shape, its default and its meaning. The walker (`shape`) and the JSON Schema
//! (`json_schema`) both read this table, and so does `resolve` for its defaults. Names and meanings are a contract with tools:
//! they are added to, not changed.

mod caching;
mod compress;
mod resident;

use super::leaf::Leaf;
use super::shape::Absent::{self, Computed, Default, Nothing, Refused};
use super::shape::{Field, Shape};

/// The most memory that one policy may be given, in MiB: the engine's pool is laid out for it when the program starts.
pub const POLICY_MEMORY_MOST_MIB: u32 = 256;

const fn field(name: &'static str, shape: &'static Shape, absent: Absent, doc: &'static str) -> Field {
    Field { name, shape, absent, doc }
}

static FLAG: Shape = Shape::Leaf(Leaf::Flag);
static SIZE: Shape = Shape::Leaf(Leaf::Size);
static DURATION: Shape = Shape::Leaf(Leaf::Duration { least_ms: 0 });
static WAIT: Shape = Shape::Leaf(Leaf::Duration { least_ms: 1 });
static SECRET: Shape = Shape::Leaf(Leaf::Secret);
static SOCKET: Shape = Shape::Leaf(Leaf::Socket);
static ADDRESS: Shape = Shape::Leaf(Leaf::Listen);
static NETWORK: Shape = Shape::Leaf(Leaf::Network);
static NETWORKS: Shape = Shape::List { each: &NETWORK, least: 0 };
static URL: Shape = Shape::Leaf(Leaf::Url);
static FILE: Shape = Shape::Leaf(Leaf::Text("the name of a file"));
static FOLDER: Shape = Shape::Leaf(Leaf::Text("the name of a folder"));

/// The whole file.
pub static FILE_SHAPE: Shape = Shape::Object(&[
    field("$schema", &SCHEMA_ADDRESS, Nothing, "Where an editor finds the JSON Schema; not read."),
    field("listen", &LISTEN, Nothing, "Where to listen."),
    field("admin", &ADMIN, Nothing, "The admin listener."),
    field("trusted_proxies", &NETWORKS, Default("[]"), "Peers whose Forwarded and X-Forwarded-For are believed."),
    field("tls", &TLS, Nothing, "Certificates in files."),
    field("acme", &ACME, Nothing, "Automatic certificates."),
    field("cache", &CACHE, Nothing, "The cache."),
    field(
        "policies",
        &FOLDER,
        Default("\"policies\""),
        "Folder of the policies, watched; `<domain>.wasm` in it is that domain's.",
    ),
    field("origins", &ORIGINS, Refused, "Where bytes come from, by name."),
    field(
        "hosts",
        &HOSTS,
        Refused,
        "The sites, by host name: `a.example`, `*.example` or `*`; the most exact one counts.",
    ),
    field("addresses", &ADDRESSES, Nothing, "Address sets that policies can ask for by name."),
    field("tables", &TABLES, Nothing, "Tables that policies can look up by name."),
    field("rates", &RATES, Nothing, "Rate limits that policies can take from by name."),
    field("keys", &KEYS, Nothing, "Public keys that policies can verify with by name."),
]);

static SCHEMA_ADDRESS: Shape = Shape::Leaf(Leaf::TextOrEmpty("a string"));

static LISTEN: Shape = Shape::Object(&[
    field("http", &LISTEN_HTTP, Default("[\"127.0.0.1:8080\"]"), "HTTP/1.1 and cleartext HTTP/2."),
    field(
        "max_connections",
        &CONNECTIONS,
        Computed("as many as files may be open, less some"),
        "Connections open at once.",
    ),
    field("max_connections_per_address", &CONNECTIONS, Computed("no limit"), "The same, from one address (IPv6: /64)."),
    field("proxy_protocol", &NETWORKS, Default("[]"), "Peers that have to begin with the PROXY protocol (v1 or v2)."),
    field("https", &LISTEN_HTTPS, Default("[]"), "HTTP/1.1 and HTTP/2 over TLS."),
    field("http3", &FLAG, Default("false"), "HTTP/3 over UDP on the addresses and ports of `https`."),
    field(
        "admin",
        &SOCKET,
        Default("\"127.0.0.1:9900\""),
        "The admin listener; loopback only unless `admin.token` is given.",
    ),
]);
static LISTEN_HTTP: Shape = Shape::List { each: &ADDRESS, least: 1 };
static CONNECTIONS: Shape = Shape::Leaf(Leaf::Count { least: 1, most: 100_000_000 });
static LISTEN_HTTPS: Shape = Shape::List { each: &ADDRESS, least: 0 };

static TLS: Shape = Shape::Object(&[field(
    "certificates",
    &CERTIFICATES,
    Default("[]"),
    "Certificates in files, read again when they change; the first is for clients that name no host.",
)]);
static CERTIFICATES: Shape = Shape::List { each: &CERTIFICATE, least: 0 };
static CERTIFICATE: Shape = Shape::Object(&[
    field("cert", &FILE, Refused, "PEM file of the chain, leaf first; or a folder of them. `<cert>.ocsp` is stapled."),
    field(
        "key",
        &FILE,
        Computed("in the file of the chain, or beside it with the ending .key"),
        "PEM file of the key.",
    ),
]);
static ACME: Shape = Shape::Object(&[
    field("contact", &CONTACTS, Default("[]"), "Whom the CA may write to: `mailto:` addresses."),
    field(
        "directory",
        &DIRECTORY,
        Default("\"letsencrypt\""),
        "\"letsencrypt\", \"letsencrypt-staging\" or the URL of an ACME directory.",
    ),
    field("ca", &FILE, Computed("the system's"), "PEM file of the CA of a private ACME server."),
    field("store", &FOLDER, Computed("<cache.dir>/acme"), "Folder of the account and the certificates."),
]);
static CONTACTS: Shape = Shape::List { each: &CONTACT, least: 0 };
static CONTACT: Shape = Shape::Leaf(Leaf::Text("an address such as \"mailto:ops@example.com\""));
static DIRECTORY: Shape = Shape::Leaf(Leaf::Text("\"letsencrypt\", \"letsencrypt-staging\" or a URL"));

static ADMIN: Shape = Shape::Object(&[field(
    "token",
    &SECRET,
    Computed("one is made and kept in <cache.dir>/admin-token"),
    "Bearer token of the admin listener: literal, `env:NAME` or `file:PATH`.",
)]);

static CACHE: Shape = Shape::Object(&[
    field(
        "dir",
        &FOLDER,
        Default("\"cache\""),
        "Folder of the cache: made if missing, refused if it holds files that are not ours.",
    ),
    field("disk", &SIZE, Computed("10 GB, or half of what is free if that is less"), "Budget on disk."),
    field("memory", &SIZE, Computed("a quarter of the memory, at most 1 GiB"), "Budget of the memory tier."),
    field(
        "free",
        &SIZE,
        Computed("a fiftieth of the file system, at least 16 MiB and at most 1 GiB"),
        "What of the file system stays free: where there is less room than `disk`, the cache keeps less.",
    ),
    field(
        "scrub",
        &SCRUB,
        Default("\"off\""),
        "Everything on disk is read and held against its checksums once in this time; \"off\": what is asked for alone.",
    ),
]);

static SCRUB: Shape =
    Shape::Either(&[Shape::Leaf(Leaf::Choice(&["off"])), Shape::Leaf(Leaf::Duration { least_ms: 1000 })]);

static ORIGINS: Shape = Shape::Names { name: "at least one origin", each: &ORIGIN, least: 1 };
static ORIGIN: Shape = Shape::OneKind {
    kinds: &[
        field("s3", &S3, Nothing, "An S3 bucket."),
        field("http", &HTTP, Nothing, "An HTTP server."),
        field("dir", &DIR, Nothing, "A folder."),
    ],
    others: &[field("timeouts", &TIMEOUTS, Nothing, "How long it may take.")],
};
static S3: Shape = Shape::Object(&[
    field("bucket", &BUCKET, Refused, "Name of the bucket."),
    field("region", &REGION, Computed("what the SDK finds, else us-east-1"), "Region."),
    field("endpoint", &URL, Computed("that of AWS"), "URL of an S3 server that is not AWS."),
    field("path_style", &FLAG, Default("false"), "The bucket in the path instead of in the host name."),
    field("access_key_id", &SECRET, Computed("the SDK's credential chain"), "Literal, `env:NAME` or `file:PATH`."),
    field("secret_access_key", &SECRET, Computed("the SDK's credential chain"), "Literal, `env:NAME` or `file:PATH`."),
    field("anonymous", &FLAG, Default("false"), "Not signed: a public bucket."),
]);
static BUCKET: Shape = Shape::Leaf(Leaf::Text("the name of a bucket"));
static REGION: Shape = Shape::Leaf(Leaf::Text("a region such as \"eu-central-1\""));
static HTTP: Shape = Shape::Object(&[
    field("url", &URL, Refused, "Base URL; its path stands in front of every request's."),
    field(
        "host",
        &HOST_FIELD,
        Default("\"origin\""),
        "What the Host field says: \"origin\" (the URL's authority), \"client\" (the client's), or this.",
    ),
    field("ca", &FILE, Computed("the system's"), "PEM file of the CA that signed its certificate."),
]);
static HOST_FIELD: Shape = Shape::Leaf(Leaf::Text("\"origin\", \"client\" or a host name"));
static DIR: Shape =
    Shape::Object(&[field("path", &FOLDER, Refused, "The folder; links that lead out of it are refused.")]);
static TIMEOUTS: Shape = Shape::Object(&[
    field("connect", &WAIT, Default("\"5s\""), "To connect, TLS included."),
    field("first_byte", &WAIT, Default("\"30s\""), "From the request sent to the response's head."),
    field("idle", &WAIT, Default("\"30s\""), "Between two pieces of a body."),
]);

static HOSTS: Shape = Shape::Names { name: "at least one host", each: &HOST, least: 1 };
static HOST: Shape = Shape::Object(&[
    field("origin", &ORIGIN_NAME, Refused, "Name of its origin."),
    field("prefix", &PREFIX, Default("\"\""), "Joined in front of each path by one slash: \"my\" and /a give my/a."),
    field(
        "methods",
        &METHODS,
        Default("\"read\""),
        "\"read\": GET, HEAD, OPTIONS; \"all\": every method goes to an http origin.",
    ),
    caching::CACHE,
    caching::TTL,
    caching::TTL_MIN,
    caching::TTL_MAX,
    caching::TTL_OVERRIDE,
    caching::BROWSER_TTL,
    caching::STALE_WHILE_REVALIDATE,
    caching::STALE_IF_ERROR,
    caching::MAX_OBJECT,
    caching::QUERY,
    caching::CLIENT_CACHE_CONTROL,
    caching::COMPRESS,
    field("rules", &caching::RULES, Default("[]"), "Caching by path: the first whose `path` fits counts, alone."),
    field(
        "cache_disk",
        &SIZE,
        Computed("no limit but `cache.disk`"),
        "Budget on disk, out of `cache.disk`, of all names of this host together: over it, what is evicted is its own.",
    ),
    resident::PIN,
    resident::MIRROR,
    field(
        "policy",
        &POLICY,
        Computed("<domain>.wasm in the folder of the policies, if it is there"),
        "Its policy, or a chain of them; null: none.",
    ),
    field("purge_method", &PURGE_METHOD, Nothing, "A request with this method purges its path, and / all of the host."),
    field(
        "purge_allow",
        &PURGE_ALLOW,
        Nothing,
        "Who may: networks, or \"policy\": whom the host's policy lets through.",
    ),
    field("max_body", &SIZE, Default("\"16MiB\""), "The longest request body."),
    field(
        "https",
        &HTTPS,
        Computed("static where a certificate fits, else auto if there is acme and the name is no pattern, else off"),
        "Where its certificate comes from.",
    ),
    field(
        "redirect_http",
        &FLAG,
        Computed("true where https is on, but not for `*`"),
        "Requests over http are sent to https, once there is a certificate.",
    ),
    field("hsts", &HSTS, Nothing, "Browsers are told to come by https only, for so long (RFC 6797)."),
    field("canonical", &CANONICAL, Nothing, "The name that requests to any other name of this host are redirected to."),
    field("client_ca", &FILE, Nothing, "PEM file of the CA that clients have to be certified by (mTLS)."),
]);
static HTTPS: Shape = Shape::Leaf(Leaf::Choice(&["auto", "static", "off"]));
static HSTS: Shape = Shape::Either(&[
    Shape::Leaf(Leaf::Duration { least_ms: 0 }),
    Shape::Object(&[
        field("max_age", &DURATION, Refused, "For how long."),
        field("include_subdomains", &FLAG, Default("false"), "All names below it too."),
        field("preload", &FLAG, Default("false"), "Browsers may ship with it."),
    ]),
]);
static CANONICAL: Shape = Shape::Leaf(Leaf::Text("a host name"));
static ORIGIN_NAME: Shape = Shape::Leaf(Leaf::Text("the name of an origin"));
static PREFIX: Shape = Shape::Leaf(Leaf::TextOrEmpty("a path without dot segments"));
static METHODS: Shape = Shape::Leaf(Leaf::Choice(&["read", "all"]));
static PURGE_METHOD: Shape = Shape::Leaf(Leaf::Choice(&["PURGE", "DELETE"]));
static PURGE_ALLOW: Shape =
    Shape::Either(&[Shape::Leaf(Leaf::Choice(&["policy"])), Shape::List { each: &NETWORK, least: 1 }]);

static POLICY: Shape = Shape::Either(&[
    Shape::Leaf(Leaf::Null),
    Shape::Leaf(Leaf::Text("the file name of a policy")),
    Shape::Object(POLICY_FIELDS),
    Shape::List { each: &ONE_POLICY, least: 1 },
]);
static ONE_POLICY: Shape =
    Shape::Either(&[Shape::Leaf(Leaf::Text("the file name of a policy")), Shape::Object(POLICY_FIELDS)]);
/// One policy as an object.
pub static POLICY_OBJECT: Shape = Shape::Object(POLICY_FIELDS);
static POLICY_FIELDS: &[Field] = &[
    field("wasm", &POLICY_FILE, Refused, "File name, relative to the folder of the policies."),
    field("config", &ANY_OBJECT, Default("{}"), "Its configuration; what is in it is the policy's own."),
    field("secrets", &SECRETS, Nothing, "Secrets by name: literal, `env:NAME` or `file:PATH`."),
    field("grants", &GRANTS, Default("[]"), "What it may use beyond the ordinary."),
    field("limits", &LIMITS, Nothing, "What one phase call may use."),
    field(
        "on_failure",
        &ON_FAILURE,
        Default("\"closed\""),
        "\"closed\": the request is refused; \"open\": it goes on.",
    ),
    field(
        "isolation",
        &ISOLATION,
        Default("\"reuse\""),
        "\"reuse\": instances serve many calls; \"request\": a fresh one each.",
    ),
];
static POLICY_FILE: Shape = Shape::Leaf(Leaf::Text("the file name of a policy"));
static ANY_OBJECT: Shape = Shape::Leaf(Leaf::AnyObject);
static SECRETS: Shape = Shape::Names { name: "secrets by name", each: &SECRET, least: 0 };
static GRANTS: Shape = Shape::List { each: &GRANT, least: 0 };
static GRANT: Shape = Shape::Leaf(Leaf::Choice(&["secrets"]));
static LIMITS: Shape = Shape::Object(&[
    field("time_ms", &TIME_MS, Default("5"), "CPU time in milliseconds."),
    field("memory_mib", &MEMORY_MIB, Default("64"), "Linear memory in MiB."),
    field("calls", &CALLS, Default("10000"), "Calls into the host."),
]);
// A policy runs on a worker that other requests wait for: a second is already very long.
static TIME_MS: Shape = Shape::Leaf(Leaf::Count { least: 1, most: 1_000 });
static MEMORY_MIB: Shape = Shape::Leaf(Leaf::Count { least: 1, most: POLICY_MEMORY_MOST_MIB });
static CALLS: Shape = Shape::Leaf(Leaf::Count { least: 1, most: 10_000_000 });
static ON_FAILURE: Shape = Shape::Leaf(Leaf::Choice(&["closed", "open"]));
static ISOLATION: Shape = Shape::Leaf(Leaf::Choice(&["reuse", "request"]));

static ADDRESSES: Shape = Shape::Names { name: "address sets by name", each: &ADDRESS_SET, least: 0 };
static ADDRESS_SET: Shape = Shape::Either(&[
    Shape::List { each: &NETWORK, least: 0 },
    Shape::Leaf(Leaf::Text("the name of a file with one of these on each line")),
]);
static TABLES: Shape = Shape::Names { name: "tables by name", each: &TABLE, least: 0 };
static TABLE: Shape =
    Shape::Either(&[Shape::Leaf(Leaf::AnyObject), Shape::Leaf(Leaf::Text("the name of a JSON file"))]);
static RATES: Shape = Shape::Names { name: "rate limits by name", each: &RATE, least: 0 };
static RATE: Shape = Shape::Object(&[
    field("rate", &RATE_COUNT, Refused, "How many."),
    field("per", &WAIT, Default("\"1s\""), "In which time."),
    field("burst", &RATE_COUNT, Computed("as many as rate"), "How many at once."),
]);
static RATE_COUNT: Shape = Shape::Leaf(Leaf::Count { least: 1, most: u32::MAX });
static KEYS: Shape = Shape::Names { name: "public keys by name", each: &KEY, least: 0 };
static KEY: Shape = Shape::Leaf(Leaf::Text("the name of a PEM or JWKS file, or \"env:NAME\""));
