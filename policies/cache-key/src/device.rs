//! The kind of device, from what it says of itself. Four kinds and no more: each is an entry of its own.

use proxyhost_policy::prelude::*;

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    Mobile,
    Tablet,
    Desktop,
    Bot,
}

impl Device {
    /// As the key and the origin have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
            Self::Desktop => "desktop",
            Self::Bot => "bot",
        }
    }

    /// The kind of the request in hand.
    pub(crate) fn of_request() -> Self {
        let agent = request::header("user-agent").unwrap_or_default();
        Self::guess(&agent, request::header("sec-ch-ua-mobile").as_deref())
    }

    /// Crawlers first, since many add the words of a phone; then the client hint, which says mobile or not but does not
    /// know tablets; then the words of the User-Agent.
    fn guess(agent: &str, mobile_hint: Option<&str>) -> Self {
        let agent = agent.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| agent.contains(word));
        if has(&["bot", "crawl", "spider", "slurp", "facebookexternalhit", "headlesschrome", "lighthouse"]) {
            return Self::Bot;
        }
        // Android leaves out "mobile" on tablets.
        if has(&["ipad", "tablet", "kindle", "silk/", "playbook"]) || has(&["android"]) && !has(&["mobile"]) {
            return Self::Tablet;
        }
        match mobile_hint.map(str::trim) {
            Some("?1") => Self::Mobile,
            Some("?0") => Self::Desktop,
            _ if has(&["mobi", "iphone", "ipod", "windows phone", "opera mini"]) => Self::Mobile,
            _ => Self::Desktop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_by_their_words() {
        for (agent, kind) in [
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1",
                Device::Mobile,
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/120 Mobile Safari/537.36",
                Device::Mobile,
            ),
            ("Mozilla/5.0 (Linux; Android 14; SM-X710) AppleWebKit/537.36 Chrome/120 Safari/537.36", Device::Tablet),
            ("Mozilla/5.0 (iPad; CPU OS 12_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148", Device::Tablet),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0", Device::Desktop),
            ("Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) Mobile (compatible; Googlebot/2.1)", Device::Bot),
            ("", Device::Desktop),
            ("curl/8", Device::Desktop),
        ] {
            assert_eq!(Device::guess(agent, None), kind, "{agent}");
        }
    }

    #[test]
    fn the_client_hint_overrules_the_words() {
        assert_eq!(Device::guess("Mozilla/5.0 (X11; Linux x86_64)", Some("?1")), Device::Mobile);
        assert_eq!(Device::guess("Mozilla/5.0 (Linux; Android 10; K) Mobile", Some("?0")), Device::Desktop);
        assert_eq!(Device::guess("Mozilla/5.0 (Linux; Android 10; K)", Some("?0")), Device::Tablet);
        assert_eq!(Device::guess("curl/8", Some("1")), Device::Desktop);
    }
}
