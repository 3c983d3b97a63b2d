//! What is held back, and how it goes out again.

use hookyard_nouns::subscription::IN_TURN;

use super::plugins::quarantine;
use super::*;

impl Fresh {
    /// So many events, and a subscription in quarantine.
    async fn in_quarantine(&self, events: usize) -> Vec<Unrouted> {
        self.store.create_subscription(subscription("one"), vec![]).await.unwrap();
        self.store.put_quarantine(quarantine()).await.unwrap();
        for number in 0..events {
            self.accept(&number.to_string()).await;
        }
        self.only_unrouted().await
    }

    async fn lift(&self) {
        self.store.lift_quarantine(&tenant(), SUBSCRIPTION).await.unwrap();
    }

    /// How many of at most so many went; none where nothing is held any more.
    async fn release(&self, limit: usize, now_ms: i64) -> Option<usize> {
        self.store.release_held(&tenant(), SUBSCRIPTION, limit, now_ms).await.unwrap()
    }
}

#[tokio::test]
async fn what_was_held_goes_out_page_by_page_in_order() {
    let it = Fresh::new().await;
    let events = it.in_quarantine(5).await;
    for one in &events[..4] {
        it.record(one, DeliveryState::Held, None).await;
    }
    assert_eq!(it.store.holding().await.unwrap(), [SUBSCRIPTION]);
    let release = async |now_ms| it.release(2, now_ms).await;
    assert_eq!(release(10).await, None, "it is in quarantine");
    it.lift().await;
    assert_eq!(release(10).await, Some(2));
    assert_eq!(release(10).await, Some(0), "the first page is to go out first");
    assert_eq!(it.claim(10).await.len(), 2);
    // What comes meanwhile goes after the others.
    it.record(&events[4], DeliveryState::Held, None).await;
    assert_eq!(release(20).await, Some(2));
    assert_eq!(it.claim(20).await.len(), 2);
    assert_eq!(release(30).await, Some(1));
    let last = it.claim(30).await.remove(0);
    assert_eq!(last.event_seq, events[4].seq);
    assert_eq!(release(40).await, None);
    assert!(it.store.holding().await.unwrap().is_empty());
}

#[tokio::test]
async fn nothing_overtakes_what_was_held_and_goes_in_turn() {
    let it = Fresh::new().await;
    let events = it.in_quarantine(4).await;
    it.routed(&events).await;
    let settle =
        async |number: usize, state| it.settle(&events[number], IN_TURN, state, None).await;
    for number in [1, 0, 2] {
        settle(number, DeliveryState::Held).await;
    }
    it.lift().await;
    let release = async || it.release(2, 10).await;
    let claim = async || it.ordered_claim(THEN_MS + 1).await.0;
    assert_eq!(release().await, Some(2));
    assert_eq!(claim().await, ["0"]);
    assert!(claim().await.is_empty(), "one at a time");
    assert_eq!(release().await, Some(1));
    settle(0, DeliveryState::Delivered).await;
    assert_eq!(claim().await, ["1"]);
    assert_eq!(release().await, Some(0), "nothing is held, and two have not gone");
    assert_eq!(it.store.holding().await.unwrap(), [SUBSCRIPTION]);
    settle(3, DeliveryState::Held).await;
    assert_eq!(release().await, Some(1));
    settle(1, DeliveryState::Dead).await;
    assert_eq!(claim().await, ["2"]);
    settle(2, DeliveryState::Delivered).await;
    assert_eq!(claim().await, ["3"]);
    settle(3, DeliveryState::Delivered).await;
    assert_eq!(release().await, None);
    assert!(it.store.holding().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_held_too_late_goes_like_any_other() {
    let it = Fresh::new().await;
    it.store.create_subscription(subscription("one"), vec![]).await.unwrap();
    for number in 0..3 {
        it.accept(&number.to_string()).await;
    }
    let events = it.only_unrouted().await;
    it.routed(&events).await;
    // Nothing is held any more, and nobody releases what would be.
    for one in [&events[1], &events[0]] {
        it.settle(one, IN_TURN, DeliveryState::Held, None).await;
    }
    assert_eq!(it.ordered_claim(THEN_MS + 1).await.0.len(), 2);
    assert!(it.store.holding().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_came_while_others_went_in_turn_goes_after_them_and_side_by_side() {
    let it = Fresh::new().await;
    let events = it.in_quarantine(4).await;
    it.routed(&events).await;
    for one in &events[..2] {
        it.settle(one, IN_TURN, DeliveryState::Held, None).await;
    }
    for one in &events[2..] {
        it.record(one, DeliveryState::Held, None).await;
    }
    it.lift().await;
    let release = async || it.release(10, 10).await;
    let claim = async || it.ordered_claim(THEN_MS + 1).await.0;
    assert_eq!(release().await, Some(2));
    assert_eq!(claim().await, ["0"]);
    assert_eq!(release().await, Some(0));
    it.settle(&events[0], IN_TURN, DeliveryState::Delivered, None).await;
    assert_eq!(claim().await, ["1"]);
    it.settle(&events[1], IN_TURN, DeliveryState::Delivered, None).await;
    assert_eq!(release().await, Some(2));
    assert_eq!(claim().await, ["2", "3"]);
    assert_eq!(release().await, None);
}

#[tokio::test]
async fn those_of_an_earlier_release_do_not_keep_back_what_is_held_anew() {
    let it = Fresh::new().await;
    let events = it.in_quarantine(6).await;
    it.routed(&events).await;
    // The first three came while others were released, and the plugin failed once more.
    for one in &events[..3] {
        it.record(one, DeliveryState::Held, None).await;
    }
    for one in &events[3..] {
        it.settle(one, IN_TURN, DeliveryState::Held, None).await;
    }
    it.lift().await;
    let release = async || it.release(2, 10).await;
    let claim = async || it.ordered_claim(THEN_MS + 1).await.0;
    assert_eq!(release().await, Some(2));
    assert_eq!(claim().await, ["0", "1"]);
    assert_eq!(release().await, Some(1), "side by side, and not those that go in turn");
    assert_eq!(claim().await, ["2"]);
    assert_eq!(release().await, Some(2));
    assert_eq!(claim().await, ["3"]);
    assert_eq!(release().await, Some(1));
    for (one, next) in events[3..].iter().zip([vec!["4"], vec!["5"], vec![]]) {
        it.settle(one, IN_TURN, DeliveryState::Delivered, None).await;
        assert_eq!(claim().await, next);
    }
    assert_eq!(release().await, None);
}
