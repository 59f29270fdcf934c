//! The four forms of a request target (RFC 9112 section 3.2).
//!
//! Which form it is depends on the method in two cases, and these are exact: authority-form is for CONNECT and CONNECT
//! takes no other, asterisk-form is for OPTIONS. Everything else begins with a slash or with `http://` or `https://`;
//! other schemes name no place that is served here.

use super::Refusal;
use super::authority::{self, Named};

/// Checks the form of a target; an absolute one names the authority that Host must agree with.
#[inline]
pub(super) fn check(method: &[u8], target: &[u8]) -> Result<Option<Named>, Refusal> {
    if target.first() == Some(&b'/') && method != b"CONNECT" { Ok(None) } else { check_rare(method, target) }
}

#[cold]
fn check_rare(method: &[u8], target: &[u8]) -> Result<Option<Named>, Refusal> {
    if method == b"CONNECT" {
        // RFC 9110 section 9.3.6: without a port it is to be refused. Host is not compared: clients leave the port out
        // there.
        return match authority::parse(target)?.port {
            None | Some(0) => Err(Refusal::bad("a target of CONNECT without a port")),
            Some(_) => Ok(None),
        };
    }
    if target == b"*" {
        return if method == b"OPTIONS" { Ok(None) } else { Err(Refusal::bad("the target * without OPTIONS")) };
    }
    let Some((own_port, rest)) = scheme(target) else {
        return Err(Refusal::bad("a target that is no path and no http or https URI"));
    };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let authority = &rest[..end];
    if authority.contains(&b'@') {
        return Err(Refusal::bad("user information in the target"));
    }
    Ok(Some(Named::new(&authority::parse(authority)?, own_port)))
}

/// The scheme's own port, and what follows `://`.
fn scheme(target: &[u8]) -> Option<(u16, &[u8])> {
    let after = |scheme: &[u8]| {
        let (front, rest) = target.split_at_checked(scheme.len())?;
        front.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    after(b"http://").map(|rest| (80, rest)).or_else(|| Some((443, after(b"https://")?)))
}
