//! What a policy that was built for WASI finds: nothing. No files, no sockets, no arguments, an empty environment, stdin at its
//! end; stdout and stderr become lines of the log, and what was last said on stderr explains a trap (a JavaScript or Python
//! exception is otherwise only "unreachable"). wasmtime-wasi is used through its asynchronous linker: the synchronous one
//! blocks, and panics on a tokio worker when a guest flushes stderr.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::console::Level;
use super::limits::LOG_LINE_BYTES_MAX;
use super::state::{State, Surroundings};

/// Most bytes of randomness in one call of a guest.
const RANDOM_BYTES_MAX: u64 = 64 << 10;
/// Bytes that are kept of what was last said on stderr.
const LAST_WORDS_MAX: usize = 1024;

/// The context of one instance.
pub(crate) struct Wasi {
    context: WasiCtx,
    table: ResourceTable,
    last_words: Arc<Mutex<String>>,
}

impl Wasi {
    /// A context that grants nothing.
    pub(crate) fn new(surroundings: &Arc<Surroundings>) -> Self {
        let last_words = Arc::new(Mutex::new(String::new()));
        let stream = |level| Console {
            surroundings: surroundings.clone(),
            level,
            line: Arc::default(),
            last_words: last_words.clone(),
        };
        let context = WasiCtxBuilder::new()
            .stdout(stream(Level::Info))
            .stderr(stream(Level::Warn))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(RANDOM_BYTES_MAX)
            .build();
        Self { context, table: ResourceTable::new(), last_words }
    }

    /// What was said on stderr since the last time this was asked.
    pub(crate) fn last_words(&self) -> String {
        std::mem::take(&mut *self.last_words.lock())
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        // The direct lane links no WASI function, so it never gets here; a context that grants nothing is right anyway.
        let surroundings = &self.surroundings;
        let wasi = self.wasi.get_or_insert_with(|| Box::new(Wasi::new(surroundings)));
        WasiCtxView { ctx: &mut wasi.context, table: &mut wasi.table }
    }
}

/// stdout or stderr of one instance: whole lines go to the log.
#[derive(Clone)]
struct Console {
    surroundings: Arc<Surroundings>,
    level: Level,
    line: Arc<Mutex<Vec<u8>>>,
    last_words: Arc<Mutex<String>>,
}

impl Console {
    fn take(&self, bytes: &[u8]) {
        let mut line = self.line.lock();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LOG_LINE_BYTES_MAX.saturating_sub(line.len());
            line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.emit(&mut line);
            }
        }
    }

    fn emit(&self, line: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if !text.is_empty() {
            self.surroundings.log.write(&self.surroundings.host, &self.surroundings.name, self.level, text);
            if self.level == Level::Warn {
                let mut words = self.last_words.lock();
                if words.len() + text.len() <= LAST_WORDS_MAX {
                    if !words.is_empty() {
                        words.push_str("; ");
                    }
                    words.push_str(text);
                }
            }
        }
        line.clear();
    }

    fn flush_line(&self) {
        // A flush in the middle of a line waits for its end: guests flush after every write.
        let mut line = self.line.lock();
        if line.len() >= LOG_LINE_BYTES_MAX {
            self.emit(&mut line);
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // The last holder of an unfinished line still says it.
        if Arc::strong_count(&self.line) == 1 {
            let mut line = std::mem::take(&mut *self.line.lock());
            self.emit(&mut line);
        }
    }
}

impl IsTerminal for Console {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Console {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Console {
    async fn ready(&mut self) {}
}

impl OutputStream for Console {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.flush_line();
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LOG_LINE_BYTES_MAX)
    }
}

impl AsyncWrite for Console {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.flush_line();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
