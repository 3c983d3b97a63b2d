//! Delivers a share of the events. The key of an event decides, so what has the same key stays together.
//!
//! ```json
//! {"percent": 2.5, "by": "/customer/id"}
//! ```
//!
//! The key, behind the salt, is hashed with SHA-256. The first eight bytes of the hash, read as a
//! big-endian number, lie somewhere between 0 and 2^64: an event in the first `percent` of a hundred
//! of that range is delivered. A larger share so holds all that a smaller one does.

use hookyard_plugin::prelude::*;
use sha2::{Digest as _, Sha256};

/// How large the share is, and what decides. An event without a key is never in it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Share {
    /// How many of a hundred keys are in: 0 is none, 100 all of them, 0.5 one of two hundred.
    #[schemars(range(min = 0, max = 100))]
    percent: f64,
    #[serde(default = "id")]
    #[schemars(
        description = "must be the name of an attribute, for example `subject`, or a JSON Pointer (RFC 6901) \
                       into the data, of at most 1024 characters: where the key is. Of a text its characters \
                       count, of anything else its JSON as it is written; `null` is no key",
        length(max = 1024),
        regex(pattern = r"^([a-z0-9]+|(/([^/~]|~[01])*)+)$")
    )]
    by: String,
    /// Subscriptions with different salts get different shares; with the same one, the same.
    #[serde(default)]
    #[schemars(length(max = 256))]
    salt: String,
}

fn id() -> String {
    "id".to_owned()
}

impl Filter for Share {
    fn filter(&self, event: &Event, _: &Context) -> Result<Decision> {
        let key = if self.by.starts_with('/') {
            event.raw(&self.by).map(|json| text(&json)).transpose()?.flatten()
        } else {
            event.attribute(&self.by)
        };
        Ok(match key {
            Some(key) => Decision::accept_if(self.holds(&key), "not-sampled"),
            None => Decision::Reject(Some(Reason::code("no-key"))),
        })
    }
}

impl Share {
    fn holds(&self, key: &str) -> bool {
        let hash = Sha256::new().chain_update(&self.salt).chain_update(key).finalize();
        let first = hash.first_chunk().expect("a SHA-256 has 32 bytes");
        // A float holds 53 bits exactly; with all 64, the last keys would be rounded up to the end.
        let place = (u64::from_be_bytes(*first) >> 11) as f64 / (1_u64 << 53) as f64;
        place < self.percent / 100.0
    }
}

fn text(json: &[u8]) -> Result<Option<String>> {
    Ok(match json {
        b"null" => None,
        [b'"', ..] => Some(serde_json::from_slice(json)?),
        _ => Some(std::str::from_utf8(json)?.to_owned()),
    })
}

export!(Share: filter);

#[cfg(test)]
mod tests {
    use hookyard_plugin::stand_in::Sample;
    use serde_json::{Value, json};

    use super::*;

    fn plugin(config: Value) -> Share {
        serde_json::from_value(config).unwrap()
    }

    fn reject(code: &str) -> Decision {
        Decision::Reject(Some(Reason::code(code)))
    }

    fn delivered(config: Value) -> Vec<u32> {
        let plugin = plugin(config);
        let in_it = |id: &u32| {
            let sample = Sample::json("{}").attribute("id", &id.to_string());
            match sample.filter(&plugin).unwrap() {
                Decision::Accept => true,
                other => {
                    assert_eq!(other, reject("not-sampled"));
                    false
                }
            }
        };
        (0..10_000).filter(in_it).collect()
    }

    #[test]
    fn a_share_is_about_as_large_as_it_says() {
        let count = |percent: f64| delivered(json!({"percent": percent})).len();
        assert_eq!(count(0.0), 0);
        assert!((10..40).contains(&count(0.25)));
        assert!((900..1_100).contains(&count(10.0)));
        assert!((4_800..5_200).contains(&count(50.0)));
        assert_eq!(count(100.0), 10_000);
    }

    #[test]
    fn a_larger_share_holds_the_smaller_one() {
        let (small, large) = (delivered(json!({"percent": 5})), delivered(json!({"percent": 20})));
        assert!(small.iter().all(|id| large.contains(id)));
    }

    #[test]
    fn another_salt_is_another_share() {
        let share = |salt: &str| delivered(json!({"percent": 50, "salt": salt}));
        let (one, other) = (share("one"), share("other"));
        let both = one.iter().filter(|id| other.contains(id)).count();
        assert!((2_300..2_700).contains(&both), "{both}");
        assert_eq!(one, share("one"));
    }

    #[test]
    fn decisions_stay_what_they_are() {
        // printf 'key' | sha256sum begins with 2c70e12b7a0646f9, which is 17.36 % of the range.
        let holds = |percent: f64| plugin(json!({"percent": percent})).holds("key");
        assert!(!holds(17.35));
        assert!(holds(17.37));
    }

    #[test]
    fn the_same_key_has_the_same_decision() {
        for number in 0..100 {
            let samples = [
                Sample::json(&json!({"order": {"id": number}}).to_string()),
                Sample::json(&json!({"order": {"id": number.to_string()}, "n": 1}).to_string()),
            ];
            let plugin = plugin(json!({"percent": 50, "by": "/order/id"}));
            let [one, other] = samples.map(|it| it.attribute("id", "7").filter(&plugin).unwrap());
            assert_eq!(one, other);
            let by_subject = self::plugin(json!({"percent": 50, "by": "subject"}));
            let subject = Sample::json("").attribute("subject", &number.to_string());
            assert_eq!(subject.filter(&by_subject).unwrap(), one);
        }
    }

    #[test]
    fn an_event_without_a_key_is_left_out() {
        let check = |by: &str, decision: Decision| {
            let plugin = plugin(json!({"percent": 100, "by": by}));
            let sample = Sample::json(r#"{"a":null,"b":"","c":[1]}"#).attribute("tenant", "");
            assert_eq!(sample.filter(&plugin).unwrap(), decision, "{by}");
        };
        check("subject", reject("no-key"));
        check("/none", reject("no-key"));
        check("/a", reject("no-key"));
        check("/b", Decision::Accept);
        check("/c", Decision::Accept);
        check("tenant", Decision::Accept);
    }

    fn takes(config: &Value) -> bool {
        let schema = schemars::schema_for!(Share);
        let fits = jsonschema::draft202012::is_valid(schema.as_value(), config);
        fits && serde_json::from_value::<Share>(config.clone()).is_ok()
    }

    #[test]
    fn a_configuration_is_a_share_and_a_key() {
        for config in [
            json!({"percent": 0}),
            json!({"percent": 100, "by": "partitionkey"}),
            json!({"percent": 0.001, "by": "/a/0/~0~1", "salt": "autumn"}),
        ] {
            assert!(takes(&config), "{config}");
        }
        for config in [
            json!({}),
            json!({"percent": -1}),
            json!({"percent": 100.5}),
            json!({"percent": "10"}),
            json!({"percent": 10, "by": ""}),
            json!({"percent": 10, "by": "a/b"}),
            json!({"percent": 10, "by": "/~2"}),
            json!({"percent": 10, "by": null}),
            json!({"percent": 10, "salt": 7}),
            json!({"percent": 10, "seed": "autumn"}),
        ] {
            assert!(!takes(&config), "{config}");
        }
    }
}
