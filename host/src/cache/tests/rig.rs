//! A cache over doubles of disk and clock, and what its tests do with it.

use super::*;

pub(super) struct Rig {
    pub(super) cache: Cache,
    pub(super) index: Arc<MemoryIndex>,
    pub(super) store: Arc<MemoryStore>,
    pub(super) clock: ManualClock,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::over(Arc::default(), Arc::default(), 1 << 30)
    }

    pub(super) fn over(index: Arc<MemoryIndex>, store: Arc<MemoryStore>, disk_bytes: u64) -> Self {
        Self::with_memory(index, store, disk_bytes, 64 << 20)
    }

    pub(super) fn with_memory(
        index: Arc<MemoryIndex>,
        store: Arc<MemoryStore>,
        disk_bytes: u64,
        memory_bytes: u64,
    ) -> Self {
        let clock = ManualClock::at(Timestamp::from_millis(1_000_000));
        let disk = Disk::new(index.clone(), store.clone(), None, None).unwrap();
        let metrics = Metrics::new().0;
        let cache = Cache::over(disk_bytes, memory_bytes, Clock::Manual(clock.clone()), metrics, Some(disk)).unwrap();
        Self { cache, index, store, clock }
    }

    /// As after a kill -9: nothing is flushed, memory is gone.
    pub(super) fn crashed(self) -> Self {
        self.cache.shared.cancel.load().cancel();
        let budget = self.cache.shared.disk_budget.load(Ordering::Relaxed);
        Self::over(self.index.clone(), self.store.clone(), budget)
    }

    pub(super) async fn settle(&self) {
        // Until nothing is on its way to the disk; the four tasks of `upkeep` stay.
        for _ in 0..500 {
            if self.cache.shared.tracker.len() <= 4 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(super) async fn keep(&self, path: &str, body: &[u8]) -> bool {
        let key = key(path);
        let head = head(&self.cache, path, Some(body.len() as u64), false);
        let (_, writer) = self.cache.keep(&key, &HeaderMap::new(), head);
        let Some(mut writer) = writer else { return body.is_empty() };
        for piece in body.chunks(300_001) {
            assert!(writer.write(Bytes::copy_from_slice(piece)).await);
        }
        writer.finish().await
    }

    pub(super) async fn find(&self, path: &str) -> Option<Found> {
        let (key, headers) = (key(path), HeaderMap::new());
        let asked = Asked { key: &key, headers: &headers, request_path: path };
        match self.cache.lookup_memory(&asked) {
            Some(found) => Some(found),
            None => self.cache.lookup_disk(&asked).await,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Option<(Vec<u8>, Tier)> {
        let found = self.find(path).await?;
        read(&found.entry).await.map(|body| (body, found.tier))
    }
}

pub(super) fn key(path: &str) -> CacheKey {
    let host = Hostname::parse("a.test").unwrap();
    CacheKey::build(&KeyParts { host: &host, path, parts: &[] }).unwrap()
}

pub(super) fn head(cache: &Cache, path: &str, size: Option<u64>, sliceable: bool) -> EntryHead {
    EntryHead {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        timing: Timing::default(),
        retention: Retention::default(),
        vary: VaryFields::default(),
        tags: vec!["all".into()],
        sequence: cache.sequence(),
        request_path: path.into(),
        origin_path: None,
        size,
        sliceable,
        as_sent: None,
    }
}

pub(super) async fn read(entry: &Entry) -> Option<Vec<u8>> {
    let body = match &entry.body {
        EntryBody::Inline(bytes) => return Some(bytes.to_vec()),
        EntryBody::Sliced(body) => body,
    };
    let (mut reader, mut all) = (body.reader(0), Vec::new());
    loop {
        match reader.next(None).await {
            Piece::Bytes(bytes) => all.extend_from_slice(&bytes),
            Piece::End => return Some(all),
            Piece::Missing(_) | Piece::Failed(_) => return None,
        }
    }
}

pub(super) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n / 7 + n / 4096) as u8).collect()
}
