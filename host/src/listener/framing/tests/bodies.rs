//! Bodies, byte by byte, and what becomes of them.

use super::cases::Case;

/// How long a body is (RFC 9112 sections 6.1 to 6.3).
pub(super) const LENGTHS: &[Case] = &[
    ("a length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", None),
    (
        "a length and a request behind",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nHost: a\r\n\
        Content-Length: 0\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n",
        None,
    ),
    ("a length in any case", b"POST / HTTP/1.1\r\nHost: a\r\ncOnTeNt-lEnGtH: 3\r\n\r\nabc", None),
    ("a length with whitespace around", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\t 3 \t\r\n\r\nabc", None),
    ("a length in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", None),
    ("a length of 0", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", None),
    ("a length of GET", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", None),
    ("a length of HEAD", b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", None),
    ("bytes in a body that are no text", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\0\r\n", None),
    (
        "more than the length is the next request",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcd / HTTP/1.1\r\nX\r\n",
        Some(400),
    ),
    ("two equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", Some(400)),
    ("two lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", Some(400)),
    ("a list of equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n", Some(400)),
    ("an empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Some(400)),
    ("a length with a plus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", Some(400)),
    ("a length with a minus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n", Some(400)),
    ("a length in hexadecimal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n", Some(400)),
    ("a length with a leading zero", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 03\r\n\r\n", Some(400)),
    ("a length of two zeros", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n", Some(400)),
    ("a length with a fraction", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3.0\r\n\r\n", Some(400)),
    ("a length with a space inside", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 3\r\n\r\n", Some(400)),
    ("a length in quotes", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"3\"\r\n\r\n", Some(400)),
    (
        "a length with digits that are not ASCII",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa3\r\n\r\n",
        Some(400),
    ),
    ("the longest length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n", None),
    (
        "a length beyond signed 64 bits",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n",
        Some(400),
    ),
    (
        "a length beyond 64 bits",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551619\r\n\r\n",
        Some(400),
    ),
    ("a length with an underscore in its name", b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\n", Some(400)),
    ("a length with a dot in its name", b"POST / HTTP/1.1\r\nHost: a\r\nContent.Length: 3\r\n\r\n", Some(400)),
    (
        "a coding with an underscore in its name",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n",
        Some(400),
    ),
    (
        "a coding with an underscore in its name, in lower case",
        b"POST / HTTP/1.1\r\nHost: a\r\ntransfer_encoding: x\r\n\r\n",
        Some(400),
    ),
    (
        "names that only begin like it",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Lengths: 3\r\nContent-LengthX: 4\r\nXContent-Length: 5\r\n\
        ContentxLength: 6\r\n\r\n",
        None,
    ),
    ("chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", None),
    ("chunked in capitals", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", None),
    (
        "chunked with whitespace around",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \tchunked \r\n\r\n0\r\n\r\n",
        None,
    ),
    ("chunked of GET", b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None),
    (
        "chunked and a length",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        Some(400),
    ),
    (
        "a length and chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        Some(400),
    ),
    ("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Some(400)),
    (
        "chunked in two fields",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        Some(400),
    ),
    ("chunked twice", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Some(400)),
    ("gzip below chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Some(501)),
    (
        "gzip and chunked in two fields",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
        Some(400),
    ),
    ("gzip above chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", Some(400)),
    ("gzip alone", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", Some(400)),
    ("identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", Some(400)),
    (
        "identity below chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n",
        Some(501),
    ),
    ("an empty coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", Some(400)),
    ("an empty coding below chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n", Some(400)),
    ("chunked and a comma", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n", Some(400)),
    ("chunked with a parameter", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", Some(400)),
    ("something like chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", Some(400)),
    ("chunked in quotes", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", Some(400)),
    ("chunked with a vertical tab", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Some(400)),
];

/// Chunks and trailers (RFC 9112 section 7.1). What is wrong here is found in the body.
pub(super) const CHUNKS: &[Case] = &[
    ("no data", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None),
    (
        "no data, and a request behind",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST / HTTP/1.1\r\n\
        Host: a\r\n\r\n",
        None,
    ),
    (
        "sizes in both cases",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\nB\r\n\
        0123456789a\r\n0\r\n\r\n",
        None,
    ),
    (
        "leading zeros",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n000\r\n\r\n",
        None,
    ),
    (
        "sixteen digits",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000003\r\nabc\r\n0\r\n\r\n",
        None,
    ),
    (
        "seventeen digits",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000003\r\nabc\r\n0\r\n\
        \r\n",
        Some(400),
    ),
    (
        "a size beyond signed 64 bits",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000000\r\n",
        Some(400),
    ),
    (
        "a size that overflows",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\n",
        Some(400),
    ),
    (
        "a size with 0x",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "a size with a plus",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "a size with a minus",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    ("no size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", Some(400)),
    (
        "a space before a size",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "a space behind a size",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "a tab behind a size",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\t\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "a letter that is no digit",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\ng\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "a bare LF behind a size",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "a bare CR behind a size",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\rabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "a bare LF behind data",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n",
        Some(400),
    ),
    (
        "a bare CR behind data",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r0\r\n\r\n",
        Some(400),
    ),
    (
        "more data than the size",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "less data than the size",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "nothing behind data",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc0\r\n\r\n",
        Some(400),
    ),
    (
        "extensions",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a;b=c;d=\"e;\\\"\\r f\"\r\nabc\r\n\
        0;z\r\n\r\n",
        None,
    ),
    (
        "extensions with whitespace where the grammar has it",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3 ; a\t= b ;c\r\nabc\r\n0\r\n\r\n",
        None,
    ),
    (
        "an extension with a space at its end",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a \r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "an extension without a name",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "an extension without a value",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "an extension with an open quote",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "an extension with an escape at its end",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\\\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "an extension with a bare LF",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "an extension with a bare CR",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "an extension with a NUL",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"\0\"\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "an extension with a comma",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3,a\r\nabc\r\n0\r\n\r\n",
        Some(400),
    ),
    (
        "a trailer",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n\
        POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        None,
    ),
    (
        "a trailer with a bare LF",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\n\r\n",
        Some(400),
    ),
    ("a bare LF at the end", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n", Some(400)),
    ("a bare CR at the end", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\rX", Some(400)),
    (
        "a trailer with a space before the colon",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : 1\r\n\r\n",
        Some(400),
    ),
    (
        "a continued trailer",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\n 2\r\n\r\n",
        Some(400),
    ),
    (
        "a trailer without a colon",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n",
        Some(400),
    ),
    (
        "a trailer with a NUL",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: \0\r\n\r\n",
        Some(400),
    ),
    (
        "Content-Length in a trailer",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\n",
        Some(400),
    ),
    (
        "Transfer-Encoding in a trailer",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\ntransfer-encoding: chunked\r\n\
        \r\n",
        Some(400),
    ),
    (
        "Content_Length in a trailer",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent_Length: 3\r\n\r\n",
        Some(400),
    ),
    (
        "Host in a trailer",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: b\r\n\r\n",
        Some(400),
    ),
    (
        "Connection in a trailer",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nConnection: close\r\n\r\n",
        Some(400),
    ),
    (
        "a request for a trailer",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
        Some(400),
    ),
];
