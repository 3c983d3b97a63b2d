//! What is sent to the API makes no more work than it is long, and no longer an answer than it needs.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::harness::client::Answer;
use crate::harness::yard::{TENANT, event};
use crate::harness::{Client, Endpoint, PATIENCE, Yard};

/// How long a call may take whose body is a megabyte, in a test build on a machine with other work. What grows with
/// the square of it takes minutes.
const SOON: Duration = Duration::from_secs(10);
/// How long an answer may be that says what is wrong.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// What a call is answered, which has to be soon and short.
async fn ask(what: &str, call: impl Future<Output = Answer>) -> Answer {
    let start = Instant::now();
    let answer = timeout(PATIENCE, call).await.unwrap_or_else(|_| panic!("{what} has no end"));
    let took = start.elapsed();
    assert!(took < SOON, "{what} took {took:?}");
    assert!(answer.text.len() < REFUSAL_BYTES_MAX, "{what}: {} bytes", answer.text.len());
    answer
}

fn with_attributes(count: usize, value: &str) -> Value {
    let mut it = event("t", json!(1));
    for number in 0..count {
        it[format!("a{number}")] = value.into();
    }
    it
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_has_few_attributes() {
    let yard = Yard::start().await;
    // Beside them there are the id, the source and the type.
    yard.client.publish(&with_attributes(97, "x")).await.expect(202);
    for (count, value) in [(98, "x"), (80_000, "x"), (60_000, "1"), (90, &"x".repeat(2_000)[..])] {
        let it = with_attributes(count, value);
        let answer = ask("attributes", yard.client.publish(&it)).await;
        assert_eq!((answer.status, answer.fields()), (400, vec![""]), "{count}: {}", answer.text);
        assert!(answer.text.contains("must have a"), "{}", answer.text);
        let batch = json!([it, event("t", json!(1))]).to_string();
        let headers = [("content-type", "application/cloudevents-batch+json")];
        let call = yard.client.call(Method::POST, "/v1/events", &headers, batch);
        let answer = ask("attributes in a batch", call).await.expect(202);
        assert_eq!(answer["rejected"].as_array().unwrap().len(), 1);
        assert_eq!(answer["accepted"].as_array().unwrap().len(), 1);
    }
    let long = "x".repeat(50_000);
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/x"),
        ("ce-type", "t"),
        ("ce-long", &long),
        ("ce-more", &long[..10_000]),
    ];
    yard.client.call(Method::POST, "/v1/events", &headers, "1").await.expect(202);
    // Of other kinds than a text, in which there is much.
    let mut it = event("t", json!(1));
    it["deep"] = json!(vec![0; 300_000]);
    let answer = ask("a list as an attribute", yard.client.publish(&it)).await;
    assert_eq!((answer.status, answer.fields()), (400, vec!["deep"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn alternate_ids_are_few() {
    let yard = Yard::start().await;
    let with = |count: usize| {
        let ids: Map<String, Value> = (0..count).map(|it| (format!("k{it}"), json!("v"))).collect();
        let mut it = event("t", json!(1));
        it["alternateids"] = Value::Object(ids).to_string().into();
        it
    };
    yard.client.publish(&with(100)).await.expect(202);
    for count in [101, 4_000] {
        let answer = ask("alternate ids", yard.client.publish(&with(count))).await;
        assert_eq!((answer.status, answer.fields()), (400, vec!["alternateids"]));
    }
    let mut twice = event("t", json!(1));
    twice["alternateids"] = r#"{"a":"1","a":"2"}"#.into();
    assert_eq!(yard.client.publish(&twice).await.fields(), ["alternateids"]);
    for (count, status) in [(100_000, 413), (9_000, 400)] {
        let ids = (0..count).map(|it| (format!("{it}"), json!(""))).collect();
        let ids = Value::Object(ids);
        let call = yard.client.json(Method::PUT, "/v1/identities/1", &ids);
        assert_eq!(ask("identities", call).await.status, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_repeat_what_was_sent_at_length() {
    let yard = Yard::start().await;
    let long = "é".repeat(400_000);
    let many: Map<String, Value> = (0..60_000).map(|it| (format!("m{it}"), json!(1))).collect();
    let twice = format!("{{\"{long}\":1,\"{long}\":2}}");
    let profiles = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Subscriptions");
    let api = [("content-type", "application/vnd.api+json")];
    let vonage = "application/vnd.newvoicemedia.v1+json";
    let vonage = [("content-type", "application/json"), ("accept", vonage)];
    for (path, headers) in [
        ("/v1/events", &[("content-type", "application/cloudevents+json")][..]),
        ("/v1/subscriptions", &JSON),
        ("/v1/replays", &JSON),
        ("/v1/plugins/minimize/try", &JSON),
        (&profiles, &JSON),
        ("/kajabi/v1/hooks", &api),
        ("/copernica/v4/webhooks", &JSON),
        ("/vonage/webhooks/subscriptions", &vonage),
    ] {
        let mut body = event("t", json!(1));
        body[long.as_str()] = 1.into();
        for (what, body) in [
            ("a long name", body.to_string()),
            ("many names", Value::Object(many.clone()).to_string()),
            ("a long name twice", twice.clone()),
        ] {
            let what = format!("{what} at {path}");
            let answer = ask(&what, yard.client.call(Method::POST, path, headers, body)).await;
            assert!((400..500).contains(&answer.status), "{what}: {}", answer.status);
            assert!(answer.text.len() < 40_000, "{what}: {} bytes", answer.text.len());
        }
    }
    let body = json!({"id": 1, "method": "addWebhook", "params": [yard.client.token(), {&long[..30_000]: 1}]});
    let answer = ask("vision6", yard.client.post("/vision6/api/jsonrpcserver", &body)).await;
    assert_eq!(answer.body["error"]["code"], 310, "{}", answer.text);
    assert!(answer.text.len() < 2_000, "{}", answer.text);
    let query = format!("/v1/deliveries?state={}", &long[..20_000].replace('é', "e"));
    assert!(ask("a state", yard.client.get(&query)).await.text.len() < 2_000);
    let hooks = format!("/kajabi/v1/hooks?{}=1", "x".repeat(20_000));
    assert!(ask("a parameter", yard.client.get(&hooks)).await.text.len() < 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_batch_is_told_to_some_length() {
    let yard = Yard::start().await;
    let bad = || {
        let mut it = event("t", json!(1));
        for number in 0..60 {
            it[format!("A{number}")] = "x".into();
        }
        it
    };
    let batch: Vec<Value> = (0..1_000).map(|_| bad()).collect();
    let batch = json!(batch).to_string();
    assert!(batch.len() < 1 << 20, "{}", batch.len());
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let answer = yard.client.call(Method::POST, "/v1/events", &headers, batch).await;
    assert!(answer.text.len() < 1 << 20, "{} bytes", answer.text.len());
    let rejected = answer.expect(400)["rejected"].as_array().unwrap().clone();
    assert_eq!(rejected.len(), 1_000, "each is told that it is wrong");
    assert_eq!(rejected[0]["problem"]["errors"].as_array().unwrap().len(), 21);
    let last = &rejected[999]["problem"];
    assert!(
        last.get("errors").is_none() && last["detail"].as_str().unwrap().contains("alone"),
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_again_and_again_is_meant_once() {
    let yard = Yard::start().await;
    let states = vec!["dead"; 12_000].join(",");
    let path = format!("/v1/deliveries?state={states}");
    yard.client.get(&path).await.expect(200);
    let body = json!({"states": vec!["dead"; 100_000], "dry_run": true});
    let answer = ask("states", yard.client.post("/v1/replays", &body)).await;
    assert_eq!(answer.status, 400, "{}", answer.text);

    let (id, secret) = yard.client_credentials(Some(TENANT), "admin", None).await;
    let log_in = async |scope: String| {
        let form = format!(
            "grant_type=client_credentials&client_id={id}&client_secret={secret}&scope={scope}"
        );
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        yard.client.call(Method::POST, "/kajabi/v1/oauth/token", &headers, form).await
    };
    let scopes = vec!["hooks:read"; 1_000].join("+");
    assert_eq!(log_in(scopes).await.expect(200)["scope"], "hooks:read");
    let scopes: Vec<_> = (0..101).map(|it| format!("a:{it}")).collect();
    assert_eq!(log_in(scopes.join("+")).await.expect(400)["error"], "invalid_scope");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_has_few_variables_and_may_be_large() {
    let yard = Yard::start().await;
    let post = async |form: String| {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let call = yard.client.call(Method::POST, "/copernica/v4/webhooks", &headers, form);
        ask("a form", call).await
    };
    let many =
        |name: &str| (0..100_000).map(|it| name.replace('#', &it.to_string())).collect::<String>();
    for form in [many("a#=&"), many("a[]=&"), many("a[#]=&"), "&".repeat(1_000_000)] {
        let answer = post(form).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.len() < 2_000, "{}", answer.text);
    }
    let headers = [("content-type", "multipart/form-data; boundary=b")];
    let field = "--b\r\ncontent-disposition: form-data; name=\"x\"\r\n\r\ny\r\n";
    let form = field.repeat(50_000) + "--b--\r\n";
    let call = yard.client.call(Method::POST, "/v1/plugins/x/versions", &headers, form);
    let answer = ask("fields", call).await;
    assert_eq!((answer.status, answer.fields()), (400, vec!["file"]), "{}", answer.text);
    let disposition = "content-disposition: form-data; name=\"file\"";
    let script = "x".repeat(3 << 20);
    let form = format!(
        "--b\r\n{disposition}\r\ncontent-type: text/javascript\r\n\r\n{script}\r\n--b--\r\n"
    );
    let answer = yard.client.call(Method::POST, "/v1/plugins/x/versions", &headers, form).await;
    assert_ne!(answer.body["code"], "malformed", "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_hold_nobody_up() {
    let yard = Yard::start().await;
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let sample = crate::harness::root().join("schemas/mypreferences/samples/profile.created.json");
    let mut sample: Value =
        serde_json::from_str(&std::fs::read_to_string(sample).unwrap()).unwrap();
    sample["data"]["Data"] = json!(vec![json!({"ProfileId": 1}); 40_000]);
    let bodies = [
        ("application/cloudevents+json", with_attributes(60_000, "x").to_string()),
        ("application/cloudevents+json", sample.to_string()),
        ("application/cloudevents+json", event("t", json!(vec![0; 400_000])).to_string()),
        (
            "application/cloudevents-batch+json",
            json!(vec![event("t", json!("x".repeat(800))); 900]).to_string(),
        ),
        (
            "application/cloudevents-batch+json",
            format!("[{}1]", format!("{},", deep(90)).repeat(5_000)),
        ),
    ];
    let mut all = JoinSet::new();
    for (media_type, body) in bodies {
        for _ in 0..4 {
            let (client, body) = (yard.client.clone(), body.clone());
            all.spawn(async move {
                loop {
                    let headers = [("content-type", media_type)];
                    client.call(Method::POST, "/v1/events", &headers, body.clone()).await;
                }
            });
        }
    }
    // Where one of these waits for even one of those bodies, a hundred take minutes.
    timeout(PATIENCE, async {
        for _ in 0..100 {
            yard.client.get("/healthz").await.expect(200);
        }
    })
    .await
    .expect("health waits for large bodies");
    all.shutdown().await;
}

/// Numbers that are at the end of what something holds, or beyond it, or none.
const NUMBERS: [&str; 8] = [
    "0",
    "-1",
    "1.5",
    "1e3",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "184467440737095516150",
];

/// Asks, and is answered something that is no mistake of the router's.
async fn check_answered(client: &Client, path: &str) -> Answer {
    let answer = client.get(path).await;
    assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.text);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn no_number_in_a_path_or_a_query_is_too_large() {
    let yard = Yard::start().await;
    let profiles = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Subscriptions");
    for (path, name) in [
        ("/v1/deliveries", "limit"),
        ("/v1/deliveries", "status"),
        ("/v1/deliveries", "before"),
        ("/v1/subscriptions", "limit"),
        ("/v1/subscriptions", "after"),
        ("/v1/replays", "limit"),
        ("/v1/counts", "step_minutes"),
        ("/v1/plugins/minimize/logs", "after"),
        ("/v1/plugins/minimize/logs", "before"),
        ("/v1/plugins/minimize/logs", "limit"),
        ("/kajabi/v1/hooks", "page[number]"),
        ("/kajabi/v1/hooks", "page[size]"),
        ("/copernica/v4/webhooks", "start"),
        ("/copernica/v4/webhooks", "limit"),
        (&profiles, "subscriptionId"),
    ] {
        for number in NUMBERS {
            check_answered(&yard.client, &format!("{path}?{name}={number}")).await;
        }
    }
    for path in ["/kajabi/v1/hooks", "/copernica/v4/webhook", "/vonage/webhooks/subscriptions"] {
        for number in NUMBERS {
            check_answered(&yard.client, &format!("{path}/{number}")).await;
        }
    }
    let largest = u64::MAX;
    for place in
        [format!("{largest}.{largest}.{largest}"), format!("0.{largest}.0"), "-1.0.0".into()]
    {
        check_answered(&yard.client, &format!("/v1/deliveries?before={place}")).await;
    }
    let last = "9999-12-31T23:59:59Z";
    for time in ["-9999-01-01T00:00:00Z", "0000-01-01T00:00:00Z", last] {
        for query in
            [format!("from={time}"), format!("to={time}"), format!("from={time}&to={last}")]
        {
            check_answered(&yard.client, &format!("/v1/counts?{query}")).await;
            check_answered(&yard.client, &format!("/v1/deliveries?{query}")).await;
        }
    }
    let hooks = format!("/kajabi/v1/hooks?page[number]={largest}");
    let answer = check_answered(&yard.client, &hooks).await.expect(400);
    assert_eq!(answer["errors"][0]["source"]["parameter"], "page[number]");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_number_in_a_body_is_too_large() {
    let yard = Yard::start().await;
    let client = &yard.client;
    let endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({"state": "paused"})).await;
    let subscription = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    for number in [json!(u64::MAX), json!(-1), json!(1e300), json!(i64::MAX), json!(0)] {
        for (path, body) in [
            (format!("{subscription}/shadow"), json!({"steps": [], "minutes": number})),
            (format!("{subscription}/shadow"), json!({"steps": [], "percent": number})),
            (format!("{subscription}/compare"), json!({"steps": [], "events": number})),
            ("/v1/replays".to_owned(), json!({"per_minute": number})),
        ] {
            let answer = client.post(&path, &body).await;
            assert_eq!(answer.status, 400, "{path} {body}: {}", answer.text);
        }
        for body in [
            json!({"retry_after_seconds": [number]}),
            json!({"in_flight_max": number}),
            json!({"per_minute": number}),
            json!({"order": {"attribute": "subject", "wait_seconds": number}}),
        ] {
            let answer = client.json(Method::PUT, &format!("{subscription}/pace"), &body).await;
            assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        }
        let settings = json!({"Settings": {"MaxConcurrentRequests": number, "Duration": number}});
        let path = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Settings");
        assert_eq!(client.json(Method::PUT, &path, &settings).await.status, 400);
        let params = json!([client.token(), [], number, number]);
        let body = json!({"id": 1, "method": "searchWebhooks", "params": params});
        let answer = client.post("/vision6/api/jsonrpcserver", &body).await.expect(200);
        assert_eq!(answer["error"]["code"], 310, "{answer}");
    }
}
