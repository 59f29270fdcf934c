//! Host names and authorities (RFC 9110 section 7.2): a name has one form, which is read as itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyhost::semantics::authority::{Authority, Hostname, MAX_HOSTNAME_BYTES};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let name = Hostname::parse(text);
    if let Ok(name) = &name {
        let shown = name.as_str();
        assert!(!shown.is_empty() && shown.len() <= MAX_HOSTNAME_BYTES && !shown.ends_with('.'));
        assert!(
            shown
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !b"/@\0?#".contains(&byte))
        );
        assert_eq!(Hostname::parse(shown).as_ref(), Ok(name));
        assert_eq!(Hostname::parse(&text.to_ascii_uppercase()).as_ref(), Ok(name), "case is none");
        if !shown.starts_with('[') {
            assert_eq!(shown, text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase());
            assert!(shown.split('.').all(|label| !label.is_empty()));
        }
        let without_port = Authority::parse(text).expect("a name is an authority without a port");
        assert_eq!((&without_port.host, without_port.port), (name, None));
    }
    if let Ok(Authority { host, port }) = Authority::parse(text) {
        let again = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        assert_eq!(Authority::parse(&again), Ok(Authority { host, port }));
        assert!(!text.contains('@'));
    }
    if let Err(error) = name {
        let told = error.to_string();
        assert!(told.len() < 1000 && !told.contains(|c: char| c.is_control()), "{told:?}");
    }
});
