//! A connection of HTTP/1.x, which lets go of what hyper keeps for it while nobody uses it.
//!
//! hyper holds two buffers of 8 KiB and a place for the request's future as long as its connection lives, and most connections
//! spend most of their time between two requests. So one that rests gives the stream back, and hyper gets it again when there
//! is something to read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;

use super::Service;
use super::adapter::Adapter;
use super::stream::Stream;
use super::watched::Watchable;
use super::workers;

/// What hyper serves.
type Served<S> = UpgradeableConnection<TokioIo<Stream>, Adapter<S>>;

/// One connection.
pub(super) struct Http1<S: Service> {
    builder: Arc<Builder>,
    adapter: Adapter<S>,
    state: State<S>,
}

enum State<S: Service> {
    Served(Box<Served<S>>),
    Resting(Box<Stream>),
    Closing(Box<Stream>),
    Gone,
}

impl<S: Service> Http1<S> {
    pub(super) fn new(builder: Arc<Builder>, stream: Stream, adapter: Adapter<S>) -> Self {
        let state = State::Served(serve(&builder, stream, &adapter));
        Self { builder, adapter, state }
    }
}

fn serve<S: Service>(builder: &Builder, stream: Stream, adapter: &Adapter<S>) -> Box<Served<S>> {
    Box::new(builder.serve_connection(TokioIo::new(stream), adapter.clone()).with_upgrades())
}

impl<S: Service> Watchable for Http1<S> {
    fn graceful_shutdown(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Gone) {
            State::Served(mut connection) => {
                Pin::new(&mut *connection).graceful_shutdown();
                State::Served(connection)
            }
            State::Resting(stream) => State::Closing(stream),
            state => state,
        };
    }

    fn rest(&mut self) {
        workers::something_rests();
        self.state = match std::mem::replace(&mut self.state, State::Gone) {
            // None: it has been given over to another protocol.
            State::Served(connection) => match connection.into_parts() {
                Some(parts) if parts.read_buf.is_empty() => State::Resting(Box::new(parts.io.into_inner())),
                // What hyper has read and not used belongs to something that it knows and its successor would not.
                Some(parts) => State::Closing(Box::new(parts.io.into_inner())),
                None => State::Gone,
            },
            state => state,
        };
    }
}

impl<S: Service> Future for Http1<S> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        loop {
            match &mut self.state {
                State::Served(connection) => return Pin::new(&mut **connection).poll(cx),
                State::Resting(stream) => {
                    ready!(stream.poll_readable(cx));
                    if let State::Resting(stream) = std::mem::replace(&mut self.state, State::Gone) {
                        self.state = State::Served(serve(&self.builder, *stream, &self.adapter));
                    }
                }
                State::Closing(stream) => {
                    // Whatever comes of it, this is the end.
                    let _ = ready!(Pin::new(&mut **stream).poll_shutdown(cx));
                    self.state = State::Gone;
                }
                State::Gone => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::activity::{Activity, Limits};
    use super::super::address::Address;
    use super::super::framing::{self, Guard};
    use super::super::sniff::{Prefix, Protocol};
    use super::super::socket::Socket;
    use super::super::stream::Watching;
    use super::super::tests::Testing;
    use super::super::{Connection, Settings};
    use super::*;
    use crate::clock::monotonic_ms;

    async fn connection() -> (TcpStream, Http1<Testing>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, peer) = listener.accept().await.unwrap();
        let local = socket.local_addr().unwrap();
        let activity = Activity::new(monotonic_ms(), Protocol::Http1);
        let limits = Limits::of(&Settings::at("test", Vec::<Address>::new()));
        let connection = Arc::new(Connection { peer, local, scheme: "http", tls: None, interim: None });
        let adapter = Adapter { service: Arc::new(Testing), connection, activity: activity.clone(), limits };
        let guard = Watching::Http1(Guard::new(framing::Limits::default()));
        let alive = tokio::sync::oneshot::channel().0;
        let stream = Stream::new(Socket::Plain(socket), Prefix::default(), activity, None, guard, alive);
        (client, Http1::new(Arc::new(Builder::new()), stream, adapter))
    }

    /// Reads an answer while the connection is worked on.
    async fn answer(client: &mut TcpStream, connection: &mut Http1<Testing>) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(b"hello 127.0.0.1") {
            tokio::select! {
                read = client.read_buf(&mut seen) => assert!(read.unwrap() > 0, "{seen:?}"),
                end = &mut *connection => panic!("it ended with {end:?}"),
            }
        }
        String::from_utf8(seen).unwrap()
    }

    fn is_resting(connection: &Http1<Testing>) -> bool {
        matches!(connection.state, State::Resting(_))
    }

    #[tokio::test]
    async fn one_that_rests_goes_on_where_it_was() {
        let (mut client, mut connection) = connection().await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        answer(&mut client, &mut connection).await;
        connection.rest();
        assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut connection).poll(cx).is_pending())).await);
        assert!(is_resting(&connection));
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(answer(&mut client, &mut connection).await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(!is_resting(&connection));
    }

    #[tokio::test]
    async fn what_hyper_has_read_of_a_message_is_never_read_again() {
        let (mut client, mut connection) = connection().await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT").await.unwrap();
        answer(&mut client, &mut connection).await;
        connection.rest();
        let ended = tokio::spawn(connection);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        drop(client);
        ended.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn one_that_rests_ends_when_either_side_wants_it() {
        let (mut client, mut resting) = connection().await;
        resting.rest();
        resting.graceful_shutdown();
        let ended = tokio::spawn(resting);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        drop(client);
        ended.await.unwrap().unwrap();

        let (client, mut resting) = connection().await;
        resting.rest();
        drop(client);
        resting.await.unwrap();
    }
}
