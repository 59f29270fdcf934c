//! HTTP/1.1 on the bare socket, with every fault that a reply asks for.

use super::*;

pub(super) struct Wire<S> {
    pub(super) stream: S,
    pub(super) buffer: BytesMut,
}

impl<S: AsyncRead + Unpin> Wire<S> {
    async fn more(&mut self) -> std::io::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// The next head, or none when the peer has closed between two requests.
    pub(super) async fn head(&mut self) -> std::io::Result<Option<Seen>> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        };
        let head = self.buffer.split_to(end + 4);
        let text = String::from_utf8_lossy(&head[..end]).into_owned();
        let mut lines = text.split("\r\n");
        let mut first = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
        let mut part = || first.next().unwrap_or_default();
        let (method, target, version) = (part(), part(), part());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Some(Seen { method, target, version, headers, body: Bytes::new(), connection: 0 }))
    }

    pub(super) async fn body(&mut self, request: &Seen) -> std::io::Result<Bytes> {
        if request.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            let mut body = BytesMut::new();
            loop {
                let line = loop {
                    if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                        let line = self.buffer.split_to(end + 2);
                        break String::from_utf8_lossy(&line[..end]).into_owned();
                    }
                    self.more().await?;
                };
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(size, 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
                while self.buffer.len() < size + 2 {
                    self.more().await?;
                }
                body.extend_from_slice(&self.buffer.split_to(size));
                let _line_end = self.buffer.split_to(2);
                if size == 0 {
                    return Ok(body.freeze());
                }
            }
        }
        let length: usize = request.header("content-length").parse().unwrap_or(0);
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.split_to(length).freeze())
    }
}

/// Sends a reply; whether the connection can be used again.
pub(super) async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    reply: &Reply,
    request: &Seen,
) -> std::io::Result<bool> {
    if reply.hang {
        std::future::pending::<()>().await;
    }
    if let Some(by) = reply.late {
        tokio::time::sleep(by).await;
    }
    if let Some(raw) = &reply.raw {
        stream.write_all(raw).await?;
        stream.flush().await?;
        return Ok(false);
    }
    stream.write_all(&reply.early).await?;
    let (status, range, content_range) = reply.settle(request);
    let bodiless = request.method == "HEAD" || matches!(status, 204 | 304) || status < 200;
    let mut head = format!(
        "HTTP/1.1 {status} {}\r\n",
        http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Other")
    );
    if !reply.no_date && reply.field("date").is_none() {
        head += &format!("date: {}\r\n", httpdate::fmt_http_date(SystemTime::now()));
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(content_range) = content_range {
        head += &format!("content-range: {content_range}\r\n");
    }
    let length = range.end - range.start;
    match reply.framing {
        _ if status == 304 || status == 204 => {}
        Framing::Length => head += &format!("content-length: {length}\r\n"),
        Framing::Claim(claimed) => head += &format!("content-length: {claimed}\r\n"),
        Framing::Chunked => head += "transfer-encoding: chunked\r\n",
        Framing::UntilClose => {}
    }
    if reply.afterwards == Afterwards::SayClose {
        head += "connection: close\r\n";
    }
    head += "\r\n";
    stream.write_all(head.as_bytes()).await?;
    if !bodiless {
        let cut = reply.cut_after.unwrap_or(u64::MAX);
        let mut sent = 0u64;
        let piece = (reply.piece.max(1)) as u64;
        let mut at = range.start;
        loop {
            if let Some((after, gate)) = &reply.gate
                && sent >= *after
            {
                stream.flush().await?;
                // The sender only goes away with the test.
                let _ = gate.clone().wait_for(|open| *open).await;
            }
            if at >= range.end || sent >= cut {
                break;
            }
            if let Some(pause) = reply.pause {
                tokio::time::sleep(pause).await;
            }
            let mut end = (at + piece).min(range.end).min(at.saturating_add(cut - sent));
            if let Some((after, _)) = &reply.gate
                && sent < *after
            {
                end = end.min(at + (after - sent));
            }
            let bytes = reply.content.slice(at..end);
            if reply.framing == Framing::Chunked {
                stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
                stream.write_all(&bytes).await?;
                stream.write_all(b"\r\n").await?;
            } else {
                stream.write_all(&bytes).await?;
            }
            stream.flush().await?;
            sent += end - at;
            at = end;
        }
        if reply.cut_after.is_some_and(|cut| cut < length) {
            return Ok(false);
        }
        if reply.framing == Framing::Chunked {
            stream.write_all(b"0\r\n\r\n").await?;
        }
    }
    stream.write_all(&reply.garbage).await?;
    stream.flush().await?;
    let short = matches!(reply.framing, Framing::Claim(claimed) if claimed > length);
    let last = reply.framing == Framing::UntilClose
        || short
        || matches!(reply.afterwards, Afterwards::SayClose | Afterwards::CloseSilently);
    Ok(!last)
}
