//! A folder as an origin: files under it, and nothing else.
//!
//! There is no way out of the folder. The kernel resolves the path beneath it (openat2 with RESOLVE_BENEATH), links
//! included; where it can't, the resolved path is checked after the file is open. Links that stay inside are followed.
//! The folder is opened anew for each request, so that a link to it can be turned to another version of a site.
//!
//! Not found are: folders themselves (index documents are a policy's work), names that begin with a dot (`.git`, `.env`)
//! except `.well-known`, empty segments (`a//b` is another path than `a/b`), and what is not a regular file.
//!
//! A file that is changed while it is read gives an error and never a body of two versions: its size and times are
//! compared after each piece. Several ranges at once are answered with the whole (RFC 9110 section 14.2 allows it).

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{
    BodyStream, ListingPlace, Origin, OriginError, OriginKind, OriginRequest, OriginResponse, Page, no_body, read_only,
    short_answer,
};
use crate::clock::{Clock, Timestamp};
use crate::semantics::byte_range::{self, ByteRange, ContentRange, Resolved};
use crate::semantics::precondition::{self, Precondition};
use crate::semantics::{content_type, date};

pub(super) mod listing;

/// Bytes read at once.
const PIECE: u64 = 128 * 1024;
/// How often a path is resolved again when the tree changes under it.
const RESOLVE_TRIES: usize = 8;

/// A folder.
pub(super) struct DirOrigin {
    name: Arc<str>,
    folder: Arc<Path>,
}

impl DirOrigin {
    /// A folder that is there.
    pub(super) fn new(name: &str, folder: &Path) -> Result<Self, OriginError> {
        let configuration = |reason: String| OriginError::Configuration { origin: name.to_owned(), reason };
        let metadata =
            std::fs::metadata(folder).map_err(|e| configuration(format!("folder {}: {e}", folder.display())))?;
        if !metadata.is_dir() {
            return Err(configuration(format!("{} is not a folder", folder.display())));
        }
        Ok(Self { name: name.into(), folder: folder.into() })
    }

    async fn ask(&self, request: OriginRequest) -> Result<OriginResponse, OriginError> {
        let method = request.method.clone();
        if method != Method::GET && method != Method::HEAD {
            return Ok(read_only(&method));
        }
        let (name, folder) = (Arc::clone(&self.name), Arc::clone(&self.folder));
        let found = tokio::task::spawn_blocking(move || look(&name, &folder, &request)).await;
        let found = found.map_err(|e| broken(&self.name, &e))??;
        Ok(match found {
            Found::Missing => short_answer(&method, StatusCode::NOT_FOUND, "not found\n"),
            Found::Forbidden => short_answer(&method, StatusCode::FORBIDDEN, "the file cannot be read\n"),
            Found::Failed(headers) => {
                let mut answer = short_answer(&method, StatusCode::PRECONDITION_FAILED, "precondition failed\n");
                answer.headers.extend(headers);
                answer
            }
            Found::Unsatisfiable(headers) => {
                let mut answer = short_answer(&method, StatusCode::RANGE_NOT_SATISFIABLE, "no such range\n");
                answer.headers.extend(headers);
                answer
            }
            Found::NotModified(headers) => OriginResponse {
                status: StatusCode::NOT_MODIFIED,
                headers,
                length: Some(0),
                body: no_body(),
                upgraded: None,
            },
            Found::Head(headers) => {
                OriginResponse { status: StatusCode::OK, headers, length: Some(0), body: no_body(), upgraded: None }
            }
            Found::Body { status, headers, length, first, rest } => {
                let body = pieces(Arc::clone(&self.name), first, rest);
                OriginResponse { status, headers, length: Some(length), body, upgraded: None }
            }
        })
    }
}

impl Origin for DirOrigin {
    fn fetch(&self, request: OriginRequest) -> BoxFuture<'_, Result<OriginResponse, OriginError>> {
        Box::pin(self.ask(request))
    }

    fn list(&self, place: ListingPlace, _retry: bool) -> BoxFuture<'_, Result<Page, OriginError>> {
        let (name, folder) = (Arc::clone(&self.name), Arc::clone(&self.folder));
        Box::pin(async move {
            let walking = tokio::task::spawn_blocking({
                let name = Arc::clone(&name);
                move || listing::page(&name, &folder, place)
            });
            walking.await.map_err(|error| broken(&name, &error))?
        })
    }

    fn kind(&self) -> OriginKind {
        OriginKind::Dir
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// What a request finds.
enum Found {
    Missing,
    Forbidden,
    Failed(HeaderMap),
    NotModified(HeaderMap),
    Unsatisfiable(HeaderMap),
    Head(HeaderMap),
    Body {
        status: StatusCode,
        headers: HeaderMap,
        length: u64,
        /// What was read in the same breath.
        first: Bytes,
        rest: Reader,
    },
}

fn broken(origin: &str, error: &dyn std::fmt::Display) -> OriginError {
    OriginError::Broken { origin: origin.to_owned(), reason: error.to_string() }
}

/// The name below the folder, if it is one that is served.
fn relative(path: &str) -> Option<&str> {
    let relative = path.strip_prefix('/')?;
    let served = |segment: &str| !segment.is_empty() && (!segment.starts_with('.') || segment == ".well-known");
    (relative.split('/').all(served) && !relative.contains('\0')).then_some(relative)
}

/// Opens, judges and reads the first piece: one visit to the blocking pool for a small file.
fn look(origin: &str, folder: &Path, request: &OriginRequest) -> Result<Found, OriginError> {
    let Some(name) = relative(&request.path) else { return Ok(Found::Missing) };
    let opened = open_beneath(folder, Path::new(name)).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = match opened {
        Ok(opened) => opened,
        Err(error) => return refuse(origin, folder, &error),
    };
    if !metadata.is_file() {
        return Ok(Found::Missing);
    }
    let version = Version::of(&metadata);
    let mut headers = version.headers();
    match precondition::evaluate(&request.method, &request.headers, &headers) {
        Precondition::Failed => return Ok(Found::Failed(headers)),
        Precondition::NotModified => return Ok(Found::NotModified(headers)),
        Precondition::Proceed => {}
    }
    let range = range(request, &headers, version.size);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if range == Resolved::Unsatisfiable {
        let whole = ContentRange { range: None, complete: Some(version.size) };
        headers.insert(header::CONTENT_RANGE, whole.to_value());
        return Ok(Found::Unsatisfiable(headers));
    }
    if let Some(kind) = content_type::by_extension(name) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    let (status, range) = match range {
        Resolved::Single(range) => {
            let part = ContentRange { range: Some(range), complete: Some(version.size) };
            headers.insert(header::CONTENT_RANGE, part.to_value());
            (StatusCode::PARTIAL_CONTENT, range)
        }
        _ => (StatusCode::OK, ByteRange { start: 0, end: version.size }),
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.len()));
    if request.method == Method::HEAD {
        return Ok(Found::Head(headers));
    }
    let mut rest = Reader { file, version, next: range.start, end: range.end };
    let first = rest.read().map_err(|e| broken(origin, &e))?;
    Ok(Found::Body { status, headers, length: range.len(), first, rest })
}

/// The part that is asked for. Range means something with GET only (RFC 9110 section 14.2).
fn range(request: &OriginRequest, headers: &HeaderMap, size: u64) -> Resolved {
    if request.method != Method::GET || !precondition::if_range_holds(&request.headers, headers) {
        return Resolved::Whole;
    }
    match byte_range::parse_range(&request.headers) {
        None => Resolved::Whole,
        Some(specs) => byte_range::resolve(&specs, size),
    }
}

/// What opening says where nothing is that a request may have.
fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::XDEV | Errno::NXIO)
}

/// A file that can't be opened: not there, not for us, or a trouble of this machine.
fn refuse(origin: &str, folder: &Path, error: &io::Error) -> Result<Found, OriginError> {
    let errno = Errno::from_io_error(error);
    if errno.is_some_and(is_absent) {
        // A folder that is gone as a whole is not the same as a file that is not there.
        return match std::fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => Ok(Found::Missing),
            Ok(_) => Err(unavailable(origin, folder, &"not a folder any more")),
            Err(error) => Err(unavailable(origin, folder, &error)),
        };
    }
    match errno {
        Some(Errno::ACCESS) => Ok(Found::Forbidden),
        _ => Err(unavailable(origin, folder, error)),
    }
}

fn unavailable(origin: &str, folder: &Path, error: &dyn std::fmt::Display) -> OriginError {
    OriginError::Unavailable { origin: origin.to_owned(), reason: format!("folder {}: {error}", folder.display()) }
}

/// Opening a pipe must not wait for its writer, nor opening a terminal make it ours.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Opens what `name` leads to, if that is below the folder.
fn open_beneath(folder: &Path, name: &Path) -> io::Result<File> {
    let handle = open_folder(folder)?;
    let beneath = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
    for _ in 0..RESOLVE_TRIES {
        return match rustix::fs::openat2(&handle, name, FLAGS, Mode::empty(), beneath) {
            Ok(file) => Ok(File::from(file)),
            // The tree was changed while it was walked.
            Err(Errno::AGAIN) => continue,
            // An absolute link, or one that leads out.
            Err(Errno::XDEV) => open_resolved(folder, name),
            // An old kernel, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => open_checked(folder, name),
            Err(error) => Err(error.into()),
        };
    }
    Err(Errno::AGAIN.into())
}

fn open_folder(folder: &Path) -> io::Result<rustix::fd::OwnedFd> {
    let flags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}

/// The folder and what `name` leads to below it, both free of links.
fn resolve(folder: &Path, name: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let root = folder.canonicalize()?;
    let target = root.join(name).canonicalize()?;
    match target.strip_prefix(&root) {
        Ok(below) => Ok((root.clone(), below.to_owned())),
        Err(_) => Err(Errno::XDEV.into()),
    }
}

/// The kernel refuses absolute links even if they stay inside; so the path is resolved here, and opened without any link.
fn open_resolved(folder: &Path, name: &Path) -> io::Result<File> {
    let (root, below) = resolve(folder, name)?;
    let plain = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
    let file = rustix::fs::openat2(open_folder(&root)?, below, FLAGS, Mode::empty(), plain)?;
    Ok(File::from(file))
}

/// Without openat2: opened by its resolved path, and then asked where it is.
fn open_checked(folder: &Path, name: &Path) -> io::Result<File> {
    use std::os::fd::AsRawFd;

    let (root, below) = resolve(folder, name)?;
    let file = rustix::fs::open(root.join(below), FLAGS.union(OFlags::NOFOLLOW), Mode::empty())?;
    let place = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if place.starts_with(&root) { Ok(File::from(file)) } else { Err(Errno::XDEV.into()) }
}

/// Which version of a file this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// ETag and Last-Modified. The tag is strong: each change of the bytes moves the time (in steps of at most ten
    /// milliseconds on Linux), the size or the inode.
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let (seconds, nanos) = self.modified;
        let tag = format!("\"{seconds:x}.{nanos:x}-{:x}-{:x}\"", self.size, self.inode);
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        // A time that is yet to come is no Last-Modified (RFC 9110 section 8.8.2.1), nor is one that HTTP can't write.
        let modified = u64::try_from(seconds).ok().filter(|s| *s <= Clock::System.now().as_secs());
        if let Some(seconds) = modified {
            let moment = Timestamp::from_millis(seconds.saturating_mul(1000));
            headers.insert(header::LAST_MODIFIED, date::to_value(moment));
        }
        headers
    }
}

/// The part of a file that is still to be read.
struct Reader {
    file: File,
    version: Version,
    next: u64,
    end: u64,
}

impl Reader {
    /// The next piece, empty at the end. Blocks.
    fn read(&mut self) -> io::Result<Bytes> {
        let length = (self.end - self.next).min(PIECE);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut piece, self.next)?;
        if Version::of(&self.file.metadata()?) != self.version {
            return Err(io::Error::other("the file was changed while it was read"));
        }
        self.next += length;
        Ok(piece.into())
    }
}

/// The first piece and then the others, each read when it is asked for.
fn pieces(origin: Arc<str>, first: Bytes, rest: Reader) -> BodyStream {
    let next = move |state: (Option<Bytes>, Option<Reader>)| {
        let origin = Arc::clone(&origin);
        async move {
            let (first, rest) = state;
            if let Some(piece) = first.filter(|piece| !piece.is_empty()) {
                return Ok(Some((piece, (None, rest))));
            }
            let Some(mut reader) = rest.filter(|reader| reader.next < reader.end) else { return Ok(None) };
            let reading = tokio::task::spawn_blocking(move || reader.read().map(|piece| (piece, reader)));
            let (piece, reader) = reading.await.map_err(|e| broken(&origin, &e))?.map_err(|e| broken(&origin, &e))?;
            Ok(Some((piece, (None, Some(reader)))))
        }
    };
    Box::pin(futures_util::stream::try_unfold((Some(first), Some(rest)), next))
}
