//! What a tenant has of what it can make more of by itself, and how much that may be.

/// Numbers of a tenant: what it has, or the most that it may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub subscriptions: u64,
    /// Of the presents states: names, URLs, filters, steps with their configurations, documents.
    pub subscription_bytes: u64,
    /// Those that were given out for others included, until they have ended.
    pub tokens: u64,
    /// Alternate ids of profiles.
    pub identities: u64,
    /// What accounts have set in providers' APIs.
    pub settings_bytes: u64,
    /// Those that are not at their end.
    pub replays: u64,
}

impl Usage {
    /// No bound at all.
    pub const UNBOUNDED: Usage = Usage {
        subscriptions: u64::MAX,
        subscription_bytes: u64::MAX,
        tokens: u64::MAX,
        identities: u64::MAX,
        settings_bytes: u64::MAX,
        replays: u64::MAX,
    };

    /// Each number with its name, its unit, and the setting that bounds it.
    pub fn all(&self) -> [(&'static str, &'static str, &'static str, u64); 6] {
        [
            ("subscriptions", "subscriptions", "subscriptions-max", self.subscriptions),
            (
                "subscription_bytes",
                "bytes of subscriptions",
                "subscription-bytes-max",
                self.subscription_bytes,
            ),
            ("tokens", "tokens", "tokens-max", self.tokens),
            ("identities", "alternate ids", "identities-max", self.identities),
            ("settings_bytes", "bytes of settings", "settings-bytes-max", self.settings_bytes),
            ("replays", "replays that are not done", "replays-max", self.replays),
        ]
    }

    /// Which of these numbers is larger than it was, and larger than it may be: in words, behind a tenant's name.
    pub fn exceeds(self, before: Usage, max: Usage) -> Option<String> {
        let numbers = self.all().into_iter().zip(before.all()).zip(max.all());
        let mut beyond = numbers.filter(|((now, before), max)| now.3 > before.3 && now.3 > max.3);
        let (((_, unit, setting, now), _), (.., max)) = beyond.next()?;
        Some(format!(
            "would have {now} {unit}, and {max} is the most (`{setting}`); delete what is not used any more"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_beyond_its_bound_is_refused() {
        let max = Usage { subscriptions: 2, ..Usage::UNBOUNDED };
        let having = |subscriptions| Usage { subscriptions, tokens: 7, ..Usage::default() };
        assert_eq!(having(2).exceeds(having(1), max), None);
        let refused = having(3).exceeds(having(2), max).unwrap();
        assert!(
            refused
                .starts_with("would have 3 subscriptions, and 2 is the most (`subscriptions-max`)")
        );
        assert_eq!(having(4).exceeds(having(5), max), None, "it may have less than before");
    }
}
