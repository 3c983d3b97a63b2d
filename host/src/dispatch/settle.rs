//! What comes of an attempt. Pure.

use std::time::Duration;

use hookyard_nouns::delivery::{Attempt, AttemptDetail, Delivery, DeliveryState, Reason};
use hookyard_nouns::subscription::Pace;
use http::HeaderName;

use crate::formats::{AfterLast, Format};
use crate::send::{Outcome, Phases, Sent};

/// An endpoint may ask for patience, but not for longer than this.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);
/// How long a delivery is put off when something of ours is in the way.
pub(super) const OURS_AGAIN_MS: i64 = 5_000;
/// What an endpoint that is overloaded gets at least.
const OVERLOADED_MIN: Duration = Duration::from_secs(60);

/// What follows for the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// The endpoint said that it is gone.
    Disable,
    /// The format says so after the last attempt of a delivery.
    Pause,
    /// The format has the subscription deleted then.
    Remove,
}

/// Adds an attempt to a delivery, and says what follows. `jitter` is between -1 and 1. Without a pace, the
/// format's schedule holds.
pub(super) fn settle(
    format: &dyn Format,
    pace: Option<&Pace>,
    mut delivery: Delivery,
    at_ms: i64,
    sent: Sent,
    plugins_us: Option<u32>,
    jitter: f64,
) -> (Delivery, Effect) {
    let Sent { outcome, took, phases, headers } = sent;
    let policy = format.policy();
    let number = delivery.attempts + 1;
    let (status, retry_after, answer, error) = match outcome {
        Outcome::Answered { status, answer, .. } if format.is_success(status) => {
            (Some(status), None, answer, None)
        }
        Outcome::Answered { status, retry_after, answer } => {
            let reason =
                Reason::new(&format!("http-{status}"), format!("the endpoint answered {status}"));
            (Some(status), retry_after, answer, Some(reason))
        }
        Outcome::Unreachable(reason) => (None, None, Vec::new(), Some(reason)),
        Outcome::NotSent(reason) => {
            let (reason, due_at_ms) = (Some(reason), Some(at_ms + OURS_AGAIN_MS));
            return (Delivery { reason, due_at_ms, ..delivery }, Effect::None);
        }
        Outcome::Broken(reason) => {
            let (state, reason) = (DeliveryState::Failed, Some(reason));
            return (Delivery { state, reason, due_at_ms: None, ..delivery }, Effect::None);
        }
    };
    let duration_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
    let ended_ms = at_ms + i64::from(duration_ms);
    let attempt = Attempt {
        number,
        at_ms,
        duration_ms,
        status,
        answer,
        error: error.clone(),
        body: delivery.body,
        rendering: delivery.rendering,
        detail: detail(phases, headers, plugins_us),
    };
    delivery.attempts = number;
    delivery.last_attempt = Some(attempt);
    delivery.reason = error.clone();
    delivery.due_at_ms = None;

    let Some(error) = error else {
        delivery.state = DeliveryState::Delivered;
        return (delivery, Effect::None);
    };
    if status == Some(410) && policy.gone_disables {
        delivery.state = DeliveryState::Dead;
        delivery.reason =
            Some(Reason::new("gone", "the endpoint answered 410: it is gone for good"));
        return (delivery, Effect::Disable);
    }
    let made = number.saturating_sub(delivery.earlier_attempts);
    let Some(delay) = next_wait(policy.schedule, pace, usize::try_from(made).unwrap_or(usize::MAX))
    else {
        let last = error.detail.unwrap_or(error.code);
        let detail = format!("{number} attempts have failed; the last one: {last}");
        delivery.state = DeliveryState::Dead;
        delivery.reason = Some(Reason::new("exhausted", detail));
        let effect = match policy.after_last {
            AfterLast::Keep => Effect::None,
            AfterLast::Pause => Effect::Pause,
            AfterLast::Remove => Effect::Remove,
        };
        return (delivery, effect);
    };
    let overloaded = matches!(status, Some(429 | 502 | 504));
    let least = if overloaded { OVERLOADED_MIN } else { Duration::ZERO };
    let asked = retry_after.unwrap_or(Duration::ZERO).min(RETRY_AFTER_MAX);
    let delay = delay.mul_f64(1.0 + 0.2 * jitter).max(least).max(asked);
    delivery.state = DeliveryState::Retrying;
    delivery.due_at_ms = Some(ended_ms + i64::try_from(delay.as_millis()).unwrap_or(i64::MAX / 2));
    (delivery, Effect::None)
}

/// How long to wait after so many attempts; none after the last.
fn next_wait(schedule: &[Duration], pace: Option<&Pace>, made: usize) -> Option<Duration> {
    match pace.and_then(|it| it.retry_after_seconds.as_deref()) {
        Some(waits) => {
            waits.get(made.saturating_sub(1)).map(|wait| Duration::from_secs((*wait).into()))
        }
        None => schedule.get(made).copied(),
    }
}

fn detail(
    phases: Phases,
    headers: Vec<(HeaderName, String)>,
    plugins_us: Option<u32>,
) -> AttemptDetail {
    let us = |it: Option<Duration>| it.map(|it| u32::try_from(it.as_micros()).unwrap_or(u32::MAX));
    AttemptDetail {
        dns_us: us(phases.dns),
        connect_us: us(phases.connect),
        tls_us: us(phases.tls),
        first_byte_us: us(phases.first_byte),
        plugins_us,
        headers: headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use hookyard_nouns::digest::Digest;
    use uuid::Uuid;

    use super::*;
    use crate::formats::CloudEvents;

    fn delivery(attempts: u32) -> Delivery {
        Delivery {
            id: Uuid::nil(),
            event_id: Uuid::nil(),
            subscription_id: Uuid::nil(),
            part: 0,
            rendering: Digest::of(b""),
            body: None,
            state: DeliveryState::Pending,
            reason: None,
            due_at_ms: None,
            attempts,
            earlier_attempts: 0,
            last_attempt: None,
            created_at_ms: 0,
            order_key: None,
            passed_over: false,
        }
    }

    fn answered(status: u16, retry_after: Option<u64>) -> Outcome {
        let retry_after = retry_after.map(Duration::from_secs);
        Outcome::Answered { status, retry_after, answer: vec![] }
    }

    fn sent(outcome: Outcome, took: Duration) -> Sent {
        Sent { took, ..Sent::nothing(outcome) }
    }

    fn unreachable() -> Outcome {
        Outcome::Unreachable(Reason::code("reset"))
    }

    /// `seconds` is how long after the attempt the next one is due.
    fn check(
        before: u32,
        outcome: Outcome,
        jitter: f64,
        state: DeliveryState,
        seconds: Option<i64>,
        effect: Effect,
    ) {
        let took = Duration::from_millis(500);
        let (after, followed) =
            settle(&CloudEvents, None, delivery(before), 1_000, sent(outcome, took), None, jitter);
        assert_eq!(after.state, state);
        assert_eq!(after.due_at_ms.map(|due| (due - 1_500) / 1_000), seconds);
        assert_eq!(followed, effect);
        assert_eq!(after.attempts, before + 1);
        assert_eq!(after.reason.is_none(), state == DeliveryState::Delivered);
    }

    #[test]
    fn success_ends_it() {
        check(0, answered(204, None), 0.0, DeliveryState::Delivered, None, Effect::None);
        check(9, answered(200, Some(5)), 0.0, DeliveryState::Delivered, None, Effect::None);
    }

    #[test]
    fn attempts_follow_the_schedule_with_jitter() {
        let retrying = DeliveryState::Retrying;
        check(0, answered(500, None), 0.0, retrying, Some(5), Effect::None);
        check(0, unreachable(), 1.0, retrying, Some(6), Effect::None);
        check(0, unreachable(), -1.0, retrying, Some(4), Effect::None);
        check(1, answered(301, None), 0.0, retrying, Some(300), Effect::None);
        check(8, answered(400, None), 0.0, retrying, Some(24 * 3_600), Effect::None);
        check(9, answered(400, None), 0.0, DeliveryState::Dead, None, Effect::None);
    }

    #[test]
    fn an_endpoint_may_ask_for_patience() {
        let retrying = DeliveryState::Retrying;
        check(0, answered(503, Some(120)), -1.0, retrying, Some(120), Effect::None);
        check(2, answered(503, Some(120)), 0.0, retrying, Some(1_800), Effect::None);
        check(0, answered(503, Some(10_000_000)), 0.0, retrying, Some(24 * 3_600), Effect::None);
        check(0, answered(429, None), 0.0, retrying, Some(60), Effect::None);
        check(0, answered(502, Some(90)), 0.0, retrying, Some(90), Effect::None);
    }

    #[test]
    fn a_subscription_may_have_a_schedule_of_its_own() {
        let pace = Pace { retry_after_seconds: Some(vec![7, 70]), ..Pace::default() };
        let after = |before, pace: &Pace| {
            let (failed, took) = (answered(500, None), Duration::ZERO);
            let (after, _) = settle(
                &CloudEvents,
                Some(pace),
                delivery(before),
                0,
                sent(failed, took),
                None,
                0.0,
            );
            (after.state, after.due_at_ms)
        };
        assert_eq!(after(0, &pace), (DeliveryState::Retrying, Some(7_000)));
        assert_eq!(after(1, &pace), (DeliveryState::Retrying, Some(70_000)));
        assert_eq!(after(2, &pace), (DeliveryState::Dead, None));
        let never = Pace { retry_after_seconds: Some(vec![]), ..Pace::default() };
        assert_eq!(after(0, &never), (DeliveryState::Dead, None));
        assert_eq!(after(0, &Pace::default()), (DeliveryState::Retrying, Some(5_000)));
    }

    #[test]
    fn what_was_not_sent_is_no_attempt() {
        let outcome = Outcome::NotSent(Reason::code("no-key"));
        let (after, effect) =
            settle(&CloudEvents, None, delivery(3), 1_000, Sent::nothing(outcome), None, 0.0);
        assert_eq!((after.attempts, after.due_at_ms), (3, Some(6_000)));
        assert_eq!((after.state, effect), (DeliveryState::Pending, Effect::None));
    }

    #[test]
    fn what_would_break_each_time_fails_at_once() {
        let outcome = Outcome::Broken(Reason::code("internal"));
        let (after, effect) =
            settle(&CloudEvents, None, delivery(3), 1_000, Sent::nothing(outcome), None, 0.0);
        assert_eq!((after.attempts, after.due_at_ms), (3, None));
        assert_eq!((after.state, effect), (DeliveryState::Failed, Effect::None));
        assert_eq!(after.reason, Some(Reason::code("internal")));
    }

    #[test]
    fn gone_is_gone() {
        check(0, answered(410, None), 0.0, DeliveryState::Dead, None, Effect::Disable);
    }
}
