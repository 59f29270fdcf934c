//! What clients send, as they send it: all of it passes.

use super::*;

const CORPUS: &[(&str, &[u8])] = &[
    ("curl", b"GET /a?b=c HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"),
    (
        "curl with an empty field",
        b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nX-Empty:\r\n\r\n",
    ),
    ("curl -0", b"GET / HTTP/1.0\r\nHost: a.test\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"),
    (
        "curl -d",
        b"POST / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nContent-Length: 3\r\n\
        Content-Type: application/x-www-form-urlencoded\r\n\r\na=b",
    ),
    (
        "curl -T -",
        b"PUT /up HTTP/1.1\r\nHost: a.test\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
        Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\nc\r\nhello world\n\r\n0\r\n\r\n",
    ),
    (
        "curl -x",
        b"GET http://a.test:8080/x?y HTTP/1.1\r\nHost: a.test:8080\r\nUser-Agent: curl/8.5.0\r\n\
        Accept: */*\r\nProxy-Connection: Keep-Alive\r\n\r\n",
    ),
    ("curl -x, an IPv6 address and no path", b"GET http://[::1]/ HTTP/1.1\r\nHost: [::1]\r\nAccept: */*\r\n\r\n"),
    (
        "curl -x, https",
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nUser-Agent: curl/8.5.0\r\n\
        Proxy-Connection: Keep-Alive\r\n\r\n",
    ),
    (
        "curl -g with brackets and braces",
        b"GET /{a}[1-2]|x^y\\z?q=\"<b>\"`' HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
    ),
    (
        "curl --http2",
        b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
        Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\
        \r\n",
    ),
    (
        "wget",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: Wget/1.21.4\r\nAccept: */*\r\n\
        Accept-Encoding: identity\r\nConnection: Keep-Alive\r\n\r\n",
    ),
    (
        "Chrome",
        b"GET /?q=a%20b HTTP/1.1\r\nHost: www.a.test\r\nConnection: keep-alive\r\n\
        sec-ch-ua: \"Chromium\";v=\"126\", \"Not/A)Brand\";v=\"8\"\r\nsec-ch-ua-mobile: ?0\r\n\
        sec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html,*/*;q=0.8\r\n\
        Sec-Fetch-Site: none\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
        Accept-Language: en-US,en;q=0.9\r\nCookie: a=b; c=d\r\n\r\n",
    ),
    (
        "Chrome, WebSocket",
        b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nPragma: no-cache\r\n\
        Upgrade: websocket\r\nOrigin: http://a.test\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
    ),
    (
        "Firefox, a range",
        b"GET /v.mp4 HTTP/1.1\r\nHost: a.test\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0\r\n\
        Accept: video/webm,*/*;q=0.5\r\nAccept-Language: en-US,en;q=0.5\r\nRange: bytes=0-\r\nDNT: 1\r\n\
        Connection: keep-alive\r\nPriority: u=4\r\nTE: trailers\r\n\r\n",
    ),
    (
        "Firefox, preflight",
        b"OPTIONS /api HTTP/1.1\r\nHost: a.test:8443\r\nAccess-Control-Request-Method: PUT\r\n\
        Access-Control-Request-Headers: content-type\r\nOrigin: https://b.test\r\n\r\n",
    ),
    (
        "Safari, raw bytes in a cookie",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nCookie: name=J\xc3\xbcrgen; old=\xfc\r\nAccept: */*\r\n\r\n",
    ),
    (
        "Go",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: Go-http-client/1.1\r\n\
        Accept-Encoding: gzip\r\n\r\n",
    ),
    (
        "Go, chunked with trailers",
        b"POST / HTTP/1.1\r\nHost: a\r\nUser-Agent: Go-http-client/1.1\r\nTransfer-Encoding: chunked\r\n\
        Trailer: Md5\r\nAccept-Encoding: gzip\r\n\r\n5\r\nhello\r\n0\r\nMd5: 5d41402a\r\n\r\n",
    ),
    (
        "Go, DELETE with a length of 0",
        b"DELETE /x HTTP/1.1\r\nHost: a\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 0\r\n\
        Accept-Encoding: gzip\r\n\r\n",
    ),
    ("Go, behind a proxy", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nUser-Agent: Go-http-client/1.1\r\n\r\n"),
    ("Python http.client", b"GET / HTTP/1.1\r\nHost: a.test:8000\r\nAccept-Encoding: identity\r\n\r\n"),
    (
        "Python requests",
        b"POST /f HTTP/1.1\r\nHost: a.test\r\nUser-Agent: python-requests/2.32.3\r\n\
        Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\
        Content-Type: application/json\r\n\r\n{}",
    ),
    (
        "Python requests, behind a proxy, a port that is the scheme's",
        b"GET http://a.test:80/ HTTP/1.1\r\nHost: a.test:80\r\nUser-Agent: python-requests/2.32.3\r\n\r\n",
    ),
    (
        "Python urllib",
        b"GET /x HTTP/1.1\r\nAccept-Encoding: identity\r\nHost: a.test\r\nUser-Agent: Python-urllib/3.12\r\n\
        Connection: close\r\n\r\n",
    ),
    (
        "Python aiohttp",
        b"POST / HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n\
        User-Agent: Python/3.12 aiohttp/3.9.5\r\nTransfer-Encoding: chunked\r\n\
        Content-Type: application/octet-stream\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
    ),
    (
        "Java HttpClient",
        b"GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 0\r\nHost: a.test:8080\r\n\
        HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n\
        User-Agent: Java-http-client/21.0.3\r\n\r\n",
    ),
    (
        "Java HttpURLConnection",
        b"GET / HTTP/1.1\r\nUser-Agent: Java/21.0.3\r\nHost: a.test\r\n\
        Accept: text/html, image/gif, image/jpeg, */*; q=0.2\r\nConnection: keep-alive\r\n\r\n",
    ),
    (
        "Java HttpURLConnection, CONNECT",
        b"CONNECT a.test:443 HTTP/1.1\r\nUser-Agent: Java/21.0.3\r\nHost: a.test\r\nAccept: */*\r\n\
        Proxy-Connection: keep-alive\r\n\r\n",
    ),
    (
        "OkHttp",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Keep-Alive\r\nAccept-Encoding: gzip\r\n\
        User-Agent: okhttp/4.12.0\r\n\r\n",
    ),
    (
        "Node fetch",
        b"POST / HTTP/1.1\r\nhost: localhost:3000\r\nconnection: keep-alive\r\n\
        content-type: text/plain;charset=UTF-8\r\naccept: */*\r\naccept-language: *\r\n\
        sec-fetch-mode: cors\r\nuser-agent: node\r\naccept-encoding: gzip, deflate\r\ncontent-length: 2\r\n\
        \r\nhi",
    ),
    ("Rust hyper", b"GET / HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\n\r\n"),
    (
        ".NET",
        b"PUT /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    ),
    (
        "Ruby Net::HTTP",
        b"GET / HTTP/1.1\r\nAccept-Encoding: gzip;q=1.0,deflate;q=0.6,identity;q=0.3\r\nAccept: */*\r\n\
        User-Agent: Ruby\r\nConnection: close\r\nHost: a.test\r\n\r\n",
    ),
    ("ab", b"GET / HTTP/1.0\r\nHost: 127.0.0.1:8080\r\nUser-Agent: ApacheBench/2.3\r\nAccept: */*\r\n\r\n"),
    (
        "ab -k -p",
        b"POST / HTTP/1.0\r\nConnection: Keep-Alive\r\nContent-length: 4\r\nContent-type: text/plain\r\n\
        Host: a:80\r\nUser-Agent: ApacheBench/2.3\r\nAccept: */*\r\n\r\nbody",
    ),
    ("wrk", b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"),
    ("wrk, no space behind the colon", b"GET /x HTTP/1.1\r\nHost:a\r\nX-Y:z\r\n\r\n"),
    (
        "hey",
        b"GET / HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: hey/0.0.1\r\nContent-Type: text/html\r\n\
        Accept-Encoding: gzip\r\n\r\n",
    ),
    ("HAProxy's check", b"OPTIONS / HTTP/1.0\r\n\r\n"),
    ("HAProxy's check with a Host", b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    (
        "a load balancer's check",
        b"GET /health HTTP/1.1\r\nHost: 10.0.0.7\r\nConnection: close\r\nUser-Agent: ELB-HealthChecker/2.0\r\n\
        Accept-Encoding: gzip, compressed\r\n\r\n",
    ),
    (
        "nginx to its upstream",
        b"GET / HTTP/1.0\r\nHost: up_stream.internal.\r\nConnection: close\r\nX-Real-IP: 192.0.2.7\r\n\r\n",
    ),
    ("WebDAV", b"PROPFIND /dav/ HTTP/1.1\r\nHost: a.test\r\nDepth: 1\r\nContent-Length: 6\r\n\r\n<a></>"),
    (
        "S3, presigned",
        b"GET /b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F2026%2Fus%2Fs3%2Faws4_request HTTP/1.1\r\n\
        Host: a.test\r\n\r\n",
    ),
    (
        "GET with a body, as Elasticsearch's clients send it",
        b"GET /_search HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    ),
    (
        "an old client with an empty line behind its body",
        b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\n",
    ),
    ("somebody with netcat", b"GET / HTTP/1.0\r\n\r\n"),
];

#[test]
fn what_clients_send_passes() {
    for (client, bytes) in CORPUS {
        assert_eq!(look_whole(bytes), (bytes.len(), None), "{client}");
        let found = messages(bytes);
        assert_eq!(found.refusal, None, "{client}, byte by byte");
        assert_eq!(found.heads.len(), 1, "{client}");
    }
}

#[test]
fn what_clients_send_passes_one_behind_the_other() {
    let (mut stream, mut requests) = (Vec::new(), 0);
    for (client, bytes) in CORPUS.iter().filter(|(_, bytes)| !bytes.starts_with(b"CONNECT")) {
        stream.extend_from_slice(bytes);
        requests += 1;
        assert_eq!(look_whole(&stream), (stream.len(), None), "{client} behind the others");
    }
    let found = messages(&stream);
    assert_eq!((found.heads.len(), found.refusal), (requests, None));
}
