//! Links as clients send them, good and bad.

use proxyhost_policy::testing::{Host, Play, Request};
use proxyhost_policy::types::Decision;
use signed_url::SignedUrl;

mod own {
    use super::*;
    use base64_url as encode;

    const EXPIRES: &str = "1900000000";

    /// A signature made without the policy's code, from the text that the README describes.
    fn sign(secret: &str, lines: [&str; 7]) -> String {
        encode(&hmac_sha256(secret, &format!("proxyhost-1\n{}", lines.join("\n"))))
    }

    fn host() -> Host {
        Host::new().config(r#"{"keys": ["new", "old"]}"#).secret("new", "kiwi").secret("old", "moa")
    }

    fn try_link(request: Request) -> (Result<Decision, String>, Play<SignedUrl>) {
        let mut play = host().play::<SignedUrl>(request);
        (play.on_request(), play)
    }

    fn refused(request: Request, why: &str) {
        let (decision, play) = try_link(request);
        assert_eq!(decision, Ok(Decision::Deny(403)), "{why}");
        assert_eq!(play.edits().var("signed-url"), Some(why));
        assert_eq!(play.edits().query, None, "a refused request edits nothing");
    }

    #[test]
    fn the_readme_s_link_is_good() {
        let sig = sign("kiwi", ["GET", "dl.test", "/a b.zip", "", EXPIRES, "", ""]);
        let (decision, play) =
            try_link(Request::get(&format!("http://DL.test:8080/a%20b.zip?expires={EXPIRES}&sig={sig}")));
        assert_eq!(decision, Ok(Decision::Next));
        assert_eq!(play.origin_query(), None);
        assert_eq!(play.key_query(), None);
    }

    #[test]
    fn a_get_link_is_good_for_head_and_for_nothing_else() {
        let sig = sign("kiwi", ["GET", "dl.test", "/a", "", EXPIRES, "", ""]);
        let url = format!("http://dl.test/a?expires={EXPIRES}&sig={sig}");
        assert_eq!(try_link(Request::new("HEAD", &url)).0, Ok(Decision::Next));
        for method in ["POST", "DELETE", "OPTIONS", "get"] {
            refused(Request::new(method, &url), "bad-signature");
        }
    }

    #[test]
    fn the_rest_of_the_query_is_signed_forwarded_and_keyed_as_it_stands() {
        let sig = sign("kiwi", ["GET", "dl.test", "/a", "w=1&x=%20&w=2", EXPIRES, "", ""]);
        let (decision, play) =
            try_link(Request::get(&format!("http://dl.test/a?w=1&expires={EXPIRES}&x=%20&sig={sig}&w=2")));
        assert_eq!(decision, Ok(Decision::Next));
        assert_eq!(play.origin_query().as_deref(), Some("w=1&x=%20&w=2"));
        assert_eq!(play.key_query().as_deref(), Some("w=1&x=%20&w=2"));
        refused(Request::get(&format!("http://dl.test/a?w=1&x=%20&w=3&expires={EXPIRES}&sig={sig}")), "bad-signature");
        refused(Request::get(&format!("http://dl.test/a?w=2&x=%20&w=1&expires={EXPIRES}&sig={sig}")), "bad-signature");
    }

    #[test]
    fn a_link_is_for_its_host_path_and_time() {
        let sig = sign("kiwi", ["GET", "dl.test", "/a", "", EXPIRES, "", ""]);
        refused(Request::get(&format!("http://other.test/a?expires={EXPIRES}&sig={sig}")), "bad-signature");
        refused(Request::get(&format!("http://dl.test/b?expires={EXPIRES}&sig={sig}")), "bad-signature");
        refused(Request::get(&format!("http://dl.test/a?expires=1900000001&sig={sig}")), "bad-signature");
        let at = |ms| Request::get(&format!("http://dl.test/a?expires={EXPIRES}&sig={sig}")).at_ms(ms);
        assert_eq!(try_link(at(1_900_000_000_999)).0, Ok(Decision::Next));
        refused(at(1_900_000_001_000), "expired");
        let lenient = Host::new().config(r#"{"leeway_seconds": 60}"#).secret("sign", "kiwi");
        assert_eq!(lenient.play::<SignedUrl>(at(1_900_000_060_000)).on_request(), Ok(Decision::Next));
    }

    #[test]
    fn a_link_for_an_address_is_good_for_its_block_alone() {
        let sig = sign("kiwi", ["GET", "dl.test", "/a", "", EXPIRES, "203.0.113.0/24", ""]);
        let url = format!("http://dl.test/a?expires={EXPIRES}&ip=203.0.113.0%2F24&sig={sig}");
        assert_eq!(try_link(Request::get(&url).from("203.0.113.77")).0, Ok(Decision::Next));
        refused(Request::get(&url).from("203.0.114.1"), "other-address");
        let without = format!("http://dl.test/a?expires={EXPIRES}&sig={sig}");
        refused(Request::get(&without).from("203.0.113.77"), "bad-signature");
    }

    #[test]
    fn a_link_for_a_referer_is_good_from_it_and_below_it() {
        let sig = sign("kiwi", ["GET", "dl.test", "/a", "", EXPIRES, "", "Shop.test"]);
        let url = format!("http://dl.test/a?expires={EXPIRES}&ref=Shop.test&sig={sig}");
        for good in ["https://shop.test/x", "https://www.SHOP.test/"] {
            assert_eq!(try_link(Request::get(&url).header("Referer", good)).0, Ok(Decision::Next), "{good}");
        }
        for bad in ["https://badshop.test/", "https://shop.test.evil.test/", "https://shop.test@evil.test/", "null"] {
            refused(Request::get(&url).header("Referer", bad), "other-referer");
        }
        refused(Request::get(&url), "other-referer");
    }

    #[test]
    fn keys_can_be_rotated() {
        let line = ["GET", "dl.test", "/a", "", EXPIRES, "", ""];
        let old = sign("moa", line);
        let url = format!("http://dl.test/a?expires={EXPIRES}&sig={old}");
        assert_eq!(try_link(Request::get(&url)).0, Ok(Decision::Next));
        assert_eq!(try_link(Request::get(&format!("{url}&kid=old"))).0, Ok(Decision::Next));
        refused(Request::get(&format!("{url}&kid=new")), "bad-signature");
        refused(Request::get(&format!("{url}&kid=sign")), "unknown-key");
    }

    #[test]
    fn what_is_missing_doubled_or_odd_is_refused() {
        let sig = sign("kiwi", ["GET", "dl.test", "/a", "", EXPIRES, "", ""]);
        refused(Request::get("http://dl.test/a"), "missing");
        refused(Request::get(&format!("http://dl.test/a?expires={EXPIRES}")), "missing");
        refused(Request::get(&format!("http://dl.test/a?expires={EXPIRES}&sig=")), "missing");
        refused(Request::get(&format!("http://dl.test/a?sig={sig}")), "missing");
        refused(
            Request::get(&format!("http://dl.test/a?expires={EXPIRES}&expires={EXPIRES}&sig={sig}")),
            "parameter-twice",
        );
        refused(Request::get(&format!("http://dl.test/a?expires={EXPIRES}&sig={sig}&%73ig=x")), "parameter-twice");
        for odd in ["+1900000000", "1.9e9", "-1", "99999999999999999999"] {
            refused(Request::get(&format!("http://dl.test/a?expires={odd}&sig={sig}")), "malformed");
        }
        refused(Request::get(&format!("http://dl.test/a?expires={EXPIRES}&sig=%FF")), "malformed");
        refused(Request::get(&format!("http://dl.test/a%0A?expires={EXPIRES}&sig={sig}")), "malformed");
        refused(Request::get(&format!("http://dl.test/a?expires={EXPIRES}&sig={}", &sig[1..])), "bad-signature");
    }

    #[test]
    fn a_link_without_end_is_only_good_where_that_is_allowed() {
        let sig = sign("kiwi", ["GET", "dl.test", "/a", "", "", "", ""]);
        let url = format!("http://dl.test/a?sig={sig}");
        refused(Request::get(&url), "missing");
        let host = Host::new().config(r#"{"expires_required": false}"#).secret("sign", "kiwi");
        assert_eq!(host.play::<SignedUrl>(Request::get(&url)).on_request(), Ok(Decision::Next));
    }

    #[test]
    fn with_a_prefix_the_site_keeps_its_own_parameters() {
        let sig = sign("kiwi", ["GET", "dl.test", "/a", "sig=mine", EXPIRES, "", ""]);
        let host = Host::new().config(r#"{"prefix": "px-"}"#).secret("sign", "kiwi");
        let url = format!("http://dl.test/a?sig=mine&px-expires={EXPIRES}&px-sig={sig}");
        let mut play = host.play::<SignedUrl>(Request::get(&url));
        assert_eq!(play.on_request(), Ok(Decision::Next));
        assert_eq!(play.origin_query().as_deref(), Some("sig=mine"));
    }

    #[test]
    fn a_configuration_that_can_not_work_is_refused_at_load() {
        let refused = |host: Host| host.configure::<SignedUrl>().err().expect("refused");
        assert!(refused(Host::new()).contains("\"sign\""));
        assert!(refused(Host::new().config(r#"{"keys": []}"#)).contains("keys is empty"));
        assert!(refused(host().config(r#"{"scheme": "rot13"}"#)).contains("rot13"));
        assert!(refused(host().config(r#"{"kyes": ["new"]}"#)).contains("kyes"));
        assert!(refused(host().config(r#"{"keys": ["new"], "generation": "g4"}"#)).contains("generation"));
    }
}

mod poormanscdn {
    use super::*;

    /// Long enough ago that the vectors' times are in the future of it: 2017-07-14 02:40:00.
    const NOW_MS: u64 = 1_500_000_000_000;

    fn host(config: &str) -> Host {
        let config = format!(r#"{{"scheme": "poormanscdn"{config}}}"#);
        Host::new().config(config).secret("sign", "mysecretkey").secret("dummy", "dummy")
    }

    fn run(config: &str, request: Request) -> (Result<Decision, String>, Play<SignedUrl>) {
        let mut play = host(config).play::<SignedUrl>(request);
        (play.on_request(), play)
    }

    fn good(config: &str, request: Request) -> Play<SignedUrl> {
        let (decision, play) = run(config, request);
        assert_eq!(decision, Ok(Decision::Next), "{:?}", play.edits().var("signed-url"));
        play
    }

    fn refused(config: &str, request: Request, why: &str) {
        let (decision, play) = run(config, request);
        assert_eq!(decision, Ok(Decision::Deny(403)));
        assert_eq!(play.edits().var("signed-url"), Some(why));
    }

    const G2: &str = "";
    const G3: &str = r#", "generation": "g3""#;
    const G4: &str = r#", "generation": "g4""#;
    const AUTO: &str = r#", "generation": "auto""#;

    /// The links of the original clients: generation, method, host, path and query, signature. All with the address
    /// 192.168.1.100 and a Referer of mysite.com.
    const VECTORS: &[(&str, &str, &str, &str, &str)] = &[
        (
            G2,
            "GET",
            "mycdnhost.com",
            "/some/file.ext?domain=mysite.com&modified=1500000000&expires=1893456000",
            "8ab5b74921c651324da2f8c0d54ea3453208e0ed",
        ),
        (
            G3,
            "GET",
            "mycdnhost.com",
            "/some/file.ext?domain=mysite.com&modified=1500000000&expires=1893456000",
            "8ab5b74921c651324da2f8c0d54ea3453208e0ed",
        ),
        (
            G4,
            "GET",
            "mycdnhost.com",
            "/some/file.ext?domain=mysite.com&modified=1500000000&expires=1893456000",
            "f0614213606d80e9574284b902317fa90c5f7ba8",
        ),
        (G2, "GET", "mycdnhost.com", "/some/file.ext?modified=0&expires=", "270f36d2938fe0c651520c2f5837b1a1f5384e80"),
        (
            G2,
            "GET",
            "mycdnhost.com",
            "/some/file.ext?host=192.168.1.100&modified=1500000000&expires=1893456000",
            "55ed5af34a18731bed3c39ce26eddc031ec42ef9",
        ),
        (G4, "GET", "mycdnhost.com", "/some/file.ext", "13e14d69846ccb559c6c25be03c88d1e177c4e28"),
        (G4, "GET", "mycdnhost.com", "/some/file.ext?modified=0&expires=0", "13e14d69846ccb559c6c25be03c88d1e177c4e28"),
        (
            G4,
            "GET",
            "mycdnhost.com",
            "/some/file.ext?host=192.168.1.100&domain=mysite.com&modified=1500000000&expires=1893456000",
            "b9b86390ba5df2074ba1a42047dd82b1196e7b83",
        ),
        (
            G4,
            "GET",
            "localhost:8080",
            "/some/file.ext?host=192.168.1.100&modified=0&expires=0",
            "30bf19976c165fc905aa8141d77325e274dcfa8f",
        ),
        (G2, "DELETE", "mycdnhost.com", "/?modified=0", "aa4ff96620c81d920c78dee7979d764731f308b9"),
        (G3, "DELETE", "mycdnhost.com", "/?modified=0", "2930223c38bbfb6561bec1bb9cfd526327ff4f38"),
        (G4, "DELETE", "mycdnhost.com", "/", "4399304a6df434157c72b84e7e7a33d7db6157ed"),
        (G2, "DELETE", "mycdnhost.com", "/some/file.ext?modified=0", "ffd62a0e52e9b48f529896311f4c3d0cb1083925"),
        (G4, "DELETE", "mycdnhost.com", "/some/file.ext", "0dccbff4980409350a47a9332c56f7c940418fa9"),
        (G2, "GET", "mycdnhost.com", "/cacheStats?modified=0", "34f04168ac2bda37d1290ec187723baa539b35eb"),
    ];

    fn link(method: &str, host: &str, target: &str, sig: &str) -> Request {
        let join = if target.contains('?') { '&' } else { '?' };
        Request::new(method, &format!("http://{host}{target}{join}sig={sig}"))
            .at_ms(NOW_MS)
            .from("192.168.1.100")
            .header("referer", "https://mysite.com/page")
    }

    #[test]
    fn the_links_of_the_original_clients_are_good() {
        for (generation, method, host, target, sig) in VECTORS {
            for config in [*generation, AUTO] {
                let play = good(config, link(method, host, target, sig));
                assert_eq!(play.origin_query(), None, "{target}");
                assert_eq!(play.key_query(), None, "{target}");
            }
            let mut off = (*sig).to_owned();
            off.replace_range(..1, if sig.starts_with('0') { "1" } else { "0" });
            refused(generation, link(method, host, target, &off), "bad-signature");
        }
    }

    #[test]
    fn generations_are_not_mixed() {
        let (_, method, host, target, g2) = VECTORS[0];
        let (_, _, _, _, g4) = VECTORS[2];
        refused(G2, link(method, host, target, g4), "bad-signature");
        refused(G4, link(method, host, target, g2), "bad-signature");
        // Without times G2 signs nothing where G3 signs a zero.
        refused(G2, link("DELETE", "mycdnhost.com", "/?modified=0", VECTORS[10].4), "bad-signature");
        refused(G3, link("DELETE", "mycdnhost.com", "/?modified=0", VECTORS[9].4), "bad-signature");
    }

    /// The vectors with words where addresses should stand can't be sent as requests; their digests still hold.
    #[test]
    fn the_digests_of_the_remaining_vectors_hold() {
        for (text, sig) in [
            ("somepath&1424&3424&someuser&somedomain", "5b15629295e3764e652d21ec40279c2c2127ca31"),
            ("GET&somepath&1424&3424&someuser&somedomain", "c2fc8335eac0d7d602d92780a930340cadc52c50"),
            ("dummyurl.com&GET&somepath&1424&3424&someuser&somedomain", "2150d484ece7125f5f849c8fadcf0620f8a131a1"),
        ] {
            assert_eq!(sign("dummy", text), sig);
        }
        // The first generation had no method in it: a link to read was one to delete. It is not taken.
        refused(
            AUTO,
            link("GET", "h.test", "/somepath?modified=0", &sign("mysecretkey", "somepath&0&&&")),
            "bad-signature",
        );
    }

    #[test]
    fn a_get_link_is_good_for_head_and_so_is_a_head_link() {
        let (config, _, host, target, sig) = VECTORS[3];
        good(config, link("HEAD", host, target, sig));
        good(config, link("HEAD", host, target, &sign("mysecretkey", "HEAD&some/file.ext&0&&&")));
        refused(config, link("DELETE", host, target, sig), "bad-signature");
        refused(config, link("GET", host, target, &sign("mysecretkey", "HEAD&some/file.ext&0&&&")), "bad-signature");
    }

    #[test]
    fn the_path_is_signed_decoded_and_without_the_slashes_and_spaces_at_its_ends() {
        let sig = sign("mysecretkey", "GET&docs/ä b&0&&&");
        for path in ["/docs/%C3%A4%20b", "/docs/%C3%A4%20b/", "//docs/%C3%A4%20b%20/"] {
            good(G2, link("GET", "h.test", &format!("{path}?modified=0"), &sig));
        }
    }

    #[test]
    fn a_link_ends_after_its_last_second() {
        let sig = sign("mysecretkey", "GET&a&0&1500000000&&");
        let at = |ms| link("GET", "h.test", "/a?modified=0&expires=1500000000", &sig).at_ms(ms);
        good(G2, at(1_500_000_000_999));
        refused(G2, at(1_500_000_001_000), "expired");
        good(r#", "leeway_seconds": 30"#, at(1_500_000_030_000));
        refused(G2, link("GET", "h.test", "/a?expires=soon", &sig), "malformed");
        refused(G2, link("GET", "h.test", "/a?modified=yesterday", &sig), "malformed");
    }

    #[test]
    fn entries_fetched_before_modified_count_as_missing() {
        let sig = sign("mysecretkey", "GET&a&1499999990&&&");
        let play = good(G2, link("GET", "h.test", "/a?modified=1499999990", &sig));
        assert_eq!(play.edits().max_age_ms, Some(10_000));
        let sig = sign("mysecretkey", "GET&a&1600000000&&&");
        let play = good(G2, link("GET", "h.test", "/a?modified=1600000000", &sig));
        assert_eq!(play.edits().max_age_ms, Some(0), "a time to come leaves nothing");
        let sig = sign("mysecretkey", "GET&a&0&&&");
        assert_eq!(good(G2, link("GET", "h.test", "/a?modified=0", &sig)).edits().max_age_ms, None);
    }

    #[test]
    fn without_sig_required_a_signature_is_asked_for_where_it_matters() {
        let open = r#", "sig_required": false"#;
        let play = good(open, Request::get("http://h.test/a?x=1"));
        assert_eq!((play.origin_query(), play.key_query()), (None, None));
        good(open, Request::get("http://h.test/a?sig=whatever&expires=5&modified=0"));
        refused(open, Request::get("http://h.test/a?modified=5"), "missing");
        refused(open, Request::new("DELETE", "http://h.test/a"), "missing");
        refused(open, Request::get("http://h.test/cacheStats"), "missing");
        refused(G2, Request::get("http://h.test/a"), "missing");
    }

    #[test]
    fn a_link_for_a_client_is_good_for_that_client() {
        let sig = sign("mysecretkey", "GET&a&0&&2001:DB8::1&");
        let url = "http://h.test/a?modified=0&host=2001:DB8::1";
        let request = Request::get(&format!("{url}&sig={sig}"));
        good(G2, request.clone().from("2001:db8:0::1"));
        refused(G2, request.from("2001:db8::2"), "other-address");
    }

    #[test]
    fn a_domain_ends_at_a_dot_unless_the_old_way_is_asked_for() {
        let sig = sign("mysecretkey", "GET&a&0&&&mysite.com");
        let from = |referer: &str| {
            Request::get(&format!("http://h.test/a?modified=0&domain=mysite.com&sig={sig}")).header("referer", referer)
        };
        let (exact, substring) = (r#", "domain_match": "exact""#, r#", "domain_match": "substring""#);
        good(G2, from("https://mysite.com/"));
        good(G2, from("https://www.mysite.com:8443/"));
        good(exact, from("https://mysite.com:8443/"));
        good(substring, from("https://mysite.com.evil.test/"));
        refused(G2, from("https://mysite.com.evil.test/"), "other-referer");
        refused(G2, from("https://notmysite.com/"), "other-referer");
        refused(exact, from("https://www.mysite.com/"), "other-referer");
        refused(substring, from("about:blank"), "other-referer");
        let with_port = sign("mysecretkey", "GET&a&0&&&mysite.com:8443");
        let request = Request::get(&format!("http://h.test/a?modified=0&domain=mysite.com:8443&sig={with_port}"));
        good(G2, request.clone().header("referer", "http://mysite.com:8443/"));
        refused(G2, request.header("referer", "http://mysite.com/"), "other-referer");
    }

    #[test]
    fn a_parameter_twice_is_refused() {
        let sig = sign("mysecretkey", "GET&a&0&&&");
        refused(G2, link("GET", "h.test", "/a?modified=0&modified=0", &sig), "parameter-twice");
        refused(G2, link("GET", "h.test", "/a?modified=0&%6dodified=9", &sig), "parameter-twice");
    }

    #[test]
    fn all_named_keys_are_tried() {
        let config = r#", "keys": ["sign", "dummy"]"#;
        good(config, link("GET", "h.test", "/a?modified=0", &sign("dummy", "GET&a&0&&&")));
        refused(G2, link("GET", "h.test", "/a?modified=0", &sign("dummy", "GET&a&0&&&")), "bad-signature");
    }

    fn sign(secret: &str, text: &str) -> String {
        sha1_hex(&format!("{secret}{}", sha1_hex(text)))
    }
}

fn hmac_sha256(secret: &str, text: &str) -> Vec<u8> {
    use hmac::{Hmac, KeyInit, Mac};
    let mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("any length will do");
    mac.chain_update(text).finalize().into_bytes().to_vec()
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn sha1_hex(text: &str) -> String {
    use sha1::Digest as _;
    sha1::Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
