//! The same replies over TLS, served by hyper.

use super::*;

type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

pub(super) async fn accept_tls(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = state.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let (state, acceptor) = (state.clone(), acceptor.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let serve = hyper::service::service_fn(move |request| {
                let state = state.clone();
                async move { Ok::<_, Infallible>(answer_tls(&state, number, request).await) }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), serve).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer_tls(
    state: &State,
    connection: u64,
    request: http::Request<hyper::body::Incoming>,
) -> http::Response<AnyBody> {
    let (head, body) = request.into_parts();
    let mut headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    if let Some(authority) = head.uri.authority().filter(|_| !head.headers.contains_key("host")) {
        headers.insert(0, ("host".to_owned(), authority.to_string()));
    }
    let seen = Seen {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        version: format!("{:?}", head.version),
        headers,
        body: body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
        connection,
    };
    let reply = state.answer(&seen);
    if reply.hang {
        std::future::pending::<()>().await;
    }
    if let Some(by) = reply.late {
        tokio::time::sleep(by).await;
    }
    let (status, range, content_range) = reply.settle(&seen);
    let mut response = http::Response::builder().status(status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    if let Some(content_range) = content_range {
        response = response.header("content-range", content_range);
    }
    if status != 304 && status != 204 && reply.framing == Framing::Length {
        response = response.header("content-length", range.end - range.start);
    }
    let gate = reply.gate.clone();
    let mut left = gate.as_ref().map_or(u64::MAX, |(after, _)| *after);
    let pieces = futures_util::stream::iter(reply.content.chunks(range)).then(move |piece| {
        let wait = left < piece.len() as u64;
        left = left.saturating_sub(piece.len() as u64);
        let gate = gate.clone().filter(|_| wait);
        async move {
            if let Some((_, mut gate)) = gate {
                let _ = gate.wait_for(|open| *open).await;
            }
            Ok(Frame::data(piece))
        }
    });
    response.body(StreamBody::new(pieces).boxed_unsync()).expect("the script's fields are valid")
}
