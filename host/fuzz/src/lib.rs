//! What the targets share: fields out of bytes.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A field of these lines; those that no field can have are left out.
pub fn field(name: &HeaderName, data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in lines(data) {
        headers.append(name, value);
    }
    headers
}

/// One field value from each line.
pub fn lines(data: &[u8]) -> impl Iterator<Item = HeaderValue> {
    data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok())
}

/// Fields whose names are told by the first byte of each line: one of `names`, in turn from `a` on.
pub fn fields(names: &[HeaderName], data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some((first, rest)) = line.split_first() else { continue };
        let name = &names[usize::from(first.wrapping_sub(b'a')) % names.len()];
        if let Ok(value) = HeaderValue::from_bytes(rest) {
            headers.append(name, value);
        }
    }
    headers
}
