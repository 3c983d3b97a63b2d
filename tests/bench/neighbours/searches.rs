//! The log, looked through again and again for what is not in it.

use serde_json::Value;
use tokio::task::JoinSet;

use super::attacker::Attacker;
use super::line::Line;

const AT_A_TIME: usize = 20;
/// Searches that no index helps with: each has to look at everything. The last ones do so within one call.
const PAGED: [&str; 3] = ["status=201", "status=202&state=delivered", "type=log.3&status=201"];
const WHOLE: [&str; 2] =
    ["GET /v1/deliveries/export?status=201", "DELETE /v1/deliveries?type=log.3&status=201"];

pub(super) async fn along_nothing(mut it: Attacker) -> Attacker {
    it.ready();
    let mut tasks = JoinSet::new();
    for number in 0..AT_A_TIME {
        let (line, token) = (it.line(), it.order.token.clone());
        tasks.spawn(async move {
            if number % 2 == 0 {
                let query = PAGED[number / 2 % PAGED.len()];
                leaf_through(line, &token, query).await;
            } else {
                let head = WHOLE[number / 2 % WHOLE.len()];
                let call = format!(
                    "{head} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
                     connection: close\r\n\r\n"
                );
                loop {
                    line.call_to_end(call.as_bytes()).await;
                }
            }
        });
    }
    it.last(tasks).await;
    it
}

/// Page by page to the end, and from the beginning again.
async fn leaf_through(mut line: Line, token: &str, query: &str) {
    let mut before = String::new();
    loop {
        let call = format!(
            "GET /v1/deliveries?limit=500&{query}{before} HTTP/1.1\r\nhost: localhost\r\n\
             authorization: Bearer {token}\r\n\r\n"
        );
        let found = line.call(call.as_bytes()).await == Some(200);
        let page: Value = serde_json::from_slice(line.body()).unwrap_or_default();
        before = match page["next"].as_str() {
            Some(next) if found => format!("&before={next}"),
            _ => String::new(),
        };
    }
}
