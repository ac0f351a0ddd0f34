//! The service classes of one user: interactive and bulk requests.

use super::*;

fn bulk(user: &str) -> FlowKey {
    FlowKey { user: UserName::from(user), service_class: ServiceClass::Bulk }
}

fn push_bulk(queue: &Arc<Queue>, user: &str, lengths: &[usize]) -> PendingRequest {
    try_push(queue, &bulk(user), lengths).expect("there is room")
}

/// The lengths of the sentences of so many passes.
fn passes(queue: &Queue, count: usize, most: usize) -> Vec<usize> {
    (0..count).flat_map(|_| taken(queue, most).concat()).collect()
}

/// The tokens of the sentences of one length.
fn tokens(lengths: &[usize], length: usize) -> usize {
    lengths.iter().filter(|&&one| one == length).sum()
}

/// Takes passes until a request is done. Returns the tokens that they take before its last ones.
fn drain(queue: &Queue, sentences: &Arc<TokenizedSentences>) -> usize {
    let mut before = 0;
    loop {
        for slice in queue.take(320).expect("it is open") {
            let tokens = slice.sentences.ids(slice.range.clone()).len();
            before += tokens;
            if Arc::ptr_eq(&slice.sentences, sentences) && slice.range.end == sentences.len() {
                return before - sentences.tokens();
            }
        }
    }
}

#[test]
fn bulk_requests_get_an_eighth_of_their_owners_share() {
    // Large and small requests of both, and items of streams, in the same classes and in others.
    for (size, calls) in [(1_000, 1), (10, 100), (1, 1_000)] {
        let queue = queue(1 << 22);
        let _interactive: Vec<_> = (0..calls).map(|_| push(&queue, "a", &vec![17; size])).collect();
        let _bulk: Vec<_> = (0..4 * calls).map(|_| push_bulk(&queue, "a", &vec![16; size])).collect();
        let _large = push_bulk(&queue, "a", &[16; 2_000]);
        let passes = passes(&queue, 20, 640);
        let (own, bulk) = (tokens(&passes, 17), tokens(&passes, 16));
        assert!(own + bulk > 20 * 600, "the passes are full: {own} and {bulk}");
        assert!(bulk.abs_diff((own + bulk) / 8) <= QUANTUM, "{own} and {bulk} in requests of {size}");
    }
}

#[test]
fn bulk_requests_get_the_whole_share_of_an_idle_owner() {
    let queue = queue(1 << 22);
    let _bulk = push_bulk(&queue, "a", &[16; 2_000]);
    let other = push(&queue, "b", &[17; 2_000]);
    let beside_another_user = passes(&queue, 20, 640);
    let (bulk, interactive) = (tokens(&beside_another_user, 16), tokens(&beside_another_user, 17));
    assert!(bulk.abs_diff(interactive) <= QUANTUM, "{bulk} and {interactive}");
    drop(other);
    let alone = passes(&queue, 10, 640);
    assert_eq!((alone.len(), tokens(&alone, 16)), (400, 6_400));
}

#[test]
fn user_of_both_classes_gets_one_share() {
    let queue = queue(1 << 22);
    let _interactive = push(&queue, "a", &[16; 2_000]);
    let _bulk = push_bulk(&queue, "a", &[17; 2_000]);
    let _other = push(&queue, "b", &[18; 2_000]);
    let passes = passes(&queue, 40, 640);
    let (own, bulk, other) = (tokens(&passes, 16), tokens(&passes, 17), tokens(&passes, 18));
    assert!((own + bulk).abs_diff(other) <= 2 * QUANTUM, "{own} and {bulk} beside {other}");
    assert!(bulk.abs_diff(other / 8) <= QUANTUM, "{own} and {bulk} beside {other}");
}

#[test]
fn bulk_requests_are_not_starved_by_ceaseless_calls() {
    let queue = queue(1 << 22);
    let bulk = push_bulk(&queue, "a", &[32; 40]);
    let mut calls: Vec<PendingRequest> = (0..64).map(|_| push(&queue, "a", &[31; 20])).collect();
    let mut all = 0;
    // Each call that is done is followed by another.
    while queue.lock().waiting.tokens_of_flow(&bulk.key.flow) > 0 {
        let lengths = taken(&queue, 620).concat();
        all += lengths.iter().sum::<usize>();
        calls.extend((0..lengths.len().div_ceil(20)).map(|_| push(&queue, "a", &[31; 20])));
        assert!(all <= 8 * 40 * 32 + 2 * 620, "{all} tokens");
    }
    assert!(all >= 7 * 40 * 32, "{all} tokens");
}

#[test]
fn long_bulk_sentence_is_paid_for() {
    let queue = queue(1 << 22);
    let _bulk = push_bulk(&queue, "a", &[8_192; 10]);
    assert_eq!(taken(&queue, 640), [[8_192]]);
    // The debt is 8,160 tokens: at 32 a turn, 255 turns of 224 tokens.
    let _interactive = push(&queue, "a", &[16; 8_000]);
    let before = (0..).map(|_| taken(&queue, 640).concat()).take_while(|pass| !pass.contains(&8_192));
    let before: usize = before.flatten().sum();
    assert!(before.abs_diff(255 * 224) <= 640, "{before}");
}

#[test]
fn single_sentence_is_in_the_next_pass_beside_bulk_jobs() {
    for (calls, lengths) in [(1, vec![32; 4_000]), (256, vec![32; 12]), (512, vec![10])] {
        let queue = queue(1 << 22);
        let _bulk: Vec<_> = (0..calls).map(|_| push_bulk(&queue, "a", &lengths)).collect();
        // The bulk job has had the service for itself.
        passes(&queue, 5, 640);
        let _single = push(&queue, "a", &[11]);
        let pass = taken(&queue, 640).concat();
        assert!(pass.contains(&11), "{pass:?}");
        assert!(pass.iter().sum::<usize>() <= 160, "passes are small: {pass:?}");
    }
}

#[test]
fn bulk_requests_do_not_shrink_passes() {
    let queue = queue(1 << 22);
    let _large: Vec<_> = (0..64).map(|_| push(&queue, "b", &[32; 32])).collect();
    let _bulk = push_bulk(&queue, "a", &[10]);
    assert_eq!(queue.lock().short_passes_until, None);
    let _interactive = push(&queue, "a", &[10]);
    assert!(queue.lock().short_passes_until.is_some());
}

#[test]
fn estimates_are_the_tokens_that_passes_take_before() {
    // Backlogs in tokens: interactive and bulk of the user, and of another user; and the request.
    for (interactive_tokens, bulk_tokens, other, size) in [
        (0, 64_000, 0, 6_400),
        (6_400, 64_000, 0, 6_400),
        (64_000, 1_600, 0, 6_400),
        (6_400, 64_000, 32_000, 6_400),
        (64_000, 6_400, 64_000, 6_400),
        (1_600, 1_600, 1_600, 6_400),
        (64_000, 64_000, 64_000, 6_400),
        (64_000, 64_000, 3_200, 1_600),
    ] {
        for flow in [interactive("a"), bulk("a")] {
            let queue = queue(1 << 22);
            let backlog = |flow: &FlowKey, tokens: usize| {
                try_push(&queue, flow, &vec![16; tokens / 16]).expect("there is room")
            };
            let _backlogs = [
                backlog(&interactive("a"), interactive_tokens),
                backlog(&bulk("a"), bulk_tokens),
                backlog(&interactive("b"), other / 2),
                backlog(&bulk("b"), other / 2),
            ];
            let sentences = request(&vec![16; size / 16]);
            let class = SizeClass::of_call(size);
            let estimate = queue.lock().waiting.ahead_of(&flow, class, size, false).begin;
            let _request = queue.push(&flow, Arc::clone(&sentences), size, None).expect("there is room");
            let before = drain(&queue, &sentences);
            assert!(
                before.abs_diff(estimate) <= 2 * QUANTUM,
                "{before} instead of {estimate} before a request of {size} of {flow:?} beside \
                 {interactive_tokens}, {bulk_tokens} and {other}"
            );
        }
    }
}

#[test]
fn admission_counts_the_bulk_backlog_at_its_weight() {
    let queue = queue_of(1 << 22, Duration::from_secs(10));
    // A hundred tokens a second.
    queue.record_pass(100, Duration::from_secs(1));
    let _bulk = push_bulk(&queue, "a", &[100; 1_000]);
    // 700 tokens, and 100 of bulk requests beside them: 8 s, or 9.2 s with the margin of the check.
    let check = |flow, tokens: usize, seconds| queue.check(&flow, 2 * tokens, in_seconds(seconds));
    assert!(check(interactive("a"), 700, 8.3).is_err() && check(interactive("a"), 700, 9.3).is_ok());
    let _interactive = push(&queue, "a", &[100; 7]);
    // 100 tokens, 100 of the large bulk request, and all 700 interactive ones, since up to 1,400
    // pass beside those: 9 s, or 10.35 s with the margin of the check.
    assert!(check(bulk("a"), 100, 9.4).is_err() && check(bulk("a"), 100, 10.4).is_ok());
    // 37 s for 3,000 tokens of the large one and 700 interactive ones, or 40.7 s with the margin.
    let rejected = try_push(&queue, &bulk("a"), &[100; 30]).expect_err("that is too long");
    assert!(rejected.message().contains("wait for about 40.7 s, longer than the maximum"), "{rejected}");
    assert_eq!(rejected.retry_after(), Some(Duration::from_millis(30_700)));
}

#[test]
fn bulk_requests_leave_room_for_others_of_their_owner() {
    let queue = queue(1_200);
    let _bulk: Vec<_> = (0..4).map(|_| push_bulk(&queue, "a", &[100])).collect();
    let rejected = try_push(&queue, &bulk("a"), &[1]).expect_err("a third of the queue waits");
    assert_eq!(rejected.reason(), Reason::Overloaded);
    assert!(
        rejected.message().contains("400 tokens of yours (400 of bulk keys) and 400 of all"),
        "{rejected}"
    );
    assert_eq!(queue.admission.rejections.memory.get(), 1);
    let _interactive = push(&queue, "a", &[200]);
    // Both together have no more than one user may have.
    assert!(try_push(&queue, &interactive("a"), &[1]).is_err());
    let _other = push(&queue, "b", &[300]);
}

#[test]
fn largest_bulk_request_is_admitted_to_an_empty_queue() {
    let queue = queue(1_200);
    let _bulk = push_bulk(&queue, "a", &[100; 6]);
    assert!(try_push(&queue, &bulk("a"), &[1]).is_err());
    let _other = push(&queue, "b", &[300]);
}

#[tokio::test]
async fn stream_items_do_not_wait_for_a_bulk_stream() {
    let queue = queue(1 << 20);
    // A thousand tokens a second: 125 for the streams of a flow.
    queue.record_pass(100, Duration::from_millis(100));
    let (stream, bulk_stream) = (interactive("a"), bulk("a"));
    let _first = queue.push_item(&bulk_stream, request(&[100])).await.expect("there is room");
    assert!(queue.push_item(&bulk_stream, request(&[100])).now_or_never().is_none());
    let item = queue.push_item(&stream, request(&[99])).now_or_never();
    let _item = item.expect("it does not wait").expect("it is open");
    assert_eq!(taken(&queue, 100), [[100]], "the bulk stream had begun");
    assert_eq!(taken(&queue, 100), [[99]]);
}

#[test]
fn bulk_callers_who_give_up_do_not_reverse_other_requests() {
    let queue = queue_of(1 << 20, Duration::from_secs(60));
    let gives_up = push_bulk(&queue, "a", &[20]);
    std::thread::sleep(Duration::from_millis(1_050));
    drop(gives_up);
    let _bulk = [push_bulk(&queue, "a", &[30]), push_bulk(&queue, "a", &[31])];
    let _interactive = [push(&queue, "a", &[20]), push(&queue, "a", &[21])];
    let pass = taken(&queue, 1_000).concat();
    let order =
        |lengths: [usize; 2]| lengths.map(|length| pass.iter().position(|&one| one == length)).is_sorted();
    assert!(order([20, 21]), "first in, first out: {pass:?}");
}
