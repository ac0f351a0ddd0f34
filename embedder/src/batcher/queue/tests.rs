mod bulk;

use futures::FutureExt;
use muse_proto::Reason;
use muse_telemetry::metrics::Metrics;

use super::{super::flow::QUANTUM, *};

const MAX_WAIT: Duration = Duration::from_secs(1);

fn queue(capacity: usize) -> Arc<Queue> {
    queue_of(capacity, MAX_WAIT)
}

fn queue_of(capacity: usize, max_wait: Duration) -> Arc<Queue> {
    Arc::new(Queue::new(capacity, max_wait, 1, RejectionCounters::new(&Metrics::of("muse-test"))))
}

fn request(lengths: &[usize]) -> Arc<TokenizedSentences> {
    let ids: Vec<Vec<u32>> = lengths.iter().map(|&length| vec![7; length]).collect();
    Arc::new(ids.iter().map(Vec::as_slice).collect())
}

fn interactive(user: &str) -> FlowKey {
    FlowKey { user: UserName::from(user), service_class: ServiceClass::Interactive }
}

fn try_push(queue: &Arc<Queue>, flow: &FlowKey, lengths: &[usize]) -> Result<PendingRequest, Error> {
    queue.push(flow, request(lengths), lengths.iter().sum(), None)
}

fn push(queue: &Arc<Queue>, user: &str, lengths: &[usize]) -> PendingRequest {
    try_push(queue, &interactive(user), lengths).expect("there is room")
}

fn rejected(queue: &Arc<Queue>, user: &str, lengths: &[usize]) -> Error {
    try_push(queue, &interactive(user), lengths).expect_err("there is no room")
}

fn in_seconds(seconds: f64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs_f64(seconds))
}

/// The lengths of the sentences of each slice.
fn taken(queue: &Queue, most: usize) -> Vec<Vec<usize>> {
    let slices = queue.take(most).expect("it is open");
    let lengths = |slice: BatchSlice| slice.range.map(|index| slice.sentences.length(index)).collect();
    slices.into_iter().map(lengths).collect()
}

#[test]
fn pass_is_filled_in_order_up_to_its_limit() {
    let queue = queue(10_000);
    let _pending = [push(&queue, "a", &[100, 200, 900, 50]), push(&queue, "a", &[300])];
    assert_eq!(taken(&queue, 1_000), [vec![100, 200], vec![300]]);
    // It did not fit before; it is more than fits with anything else.
    assert_eq!(taken(&queue, 800), [[900]]);
    assert_eq!(taken(&queue, 1_000), [[50]]);
    assert_eq!(queue.lock().waiting.tokens(), 0);
}

#[test]
fn small_request_waits_for_no_large_one_and_no_bulk_job() {
    let queue = queue(1 << 20);
    let _large = push(&queue, "a", &[32; 4_000]);
    let _bulk: Vec<PendingRequest> = (0..256).map(|_| push(&queue, "a", &[32; 12])).collect();
    let _small = push(&queue, "a", &[10]);
    let _other = push(&queue, "b", &[11]);
    let passes: Vec<Vec<usize>> = (0..3).map(|_| taken(&queue, 1_024).concat()).collect();
    let all = passes.concat();
    assert!(all.contains(&11) && all.contains(&10), "{passes:?}");
    assert!(all.iter().sum::<usize>() <= 1_024, "{passes:?}");
}

#[test]
fn classes_share_passes_and_requests_of_a_class_do_not() {
    let queue = queue(1 << 20);
    let _large: Vec<PendingRequest> = (0..4).map(|_| push(&queue, "a", &[400; 20])).collect();
    let _small: Vec<PendingRequest> = (0..1_000).map(|_| push(&queue, "a", &[8])).collect();
    let passes: Vec<usize> = (0..8).flat_map(|_| taken(&queue, 1_024).concat()).collect();
    let tokens = |length| passes.iter().filter(|&&one| one == length).sum::<usize>();
    assert!(tokens(400).abs_diff(tokens(8)) <= 1_024, "{} and {}", tokens(400), tokens(8));
    let state = queue.lock();
    assert_eq!(
        state.waiting.tokens_of_class(&interactive("a"), SizeClass::of_call(8_000)),
        4 * 8_000 - tokens(400)
    );
    drop(state);
    // The first of them is done before the next one starts.
    let slices: Vec<BatchSlice> = (0..16).flat_map(|_| queue.take(1_024).expect("it is open")).collect();
    let large: Vec<_> = slices.iter().filter(|slice| slice.sentences.length(0) == 400).collect();
    let mut order: Vec<*const TokenizedSentences> =
        large.iter().map(|slice| Arc::as_ptr(&slice.sentences)).collect();
    order.dedup();
    assert!(order.len() <= 3, "{} of four are started", order.len());
}

#[test]
fn newest_request_is_first_while_callers_give_up() {
    let queue = queue_of(1 << 20, Duration::from_secs(60));
    let mut pending: Vec<PendingRequest> = (20..30).map(|length| push(&queue, "a", &[length, 1])).collect();
    drop(pending.remove(0));
    assert_eq!(taken(&queue, 21), [[21]], "a caller who leaves at once has not given up");
    std::thread::sleep(Duration::from_millis(1_050));
    // The sentence of one token is the rest of a request that has started.
    drop(pending.remove(1));
    assert_eq!(taken(&queue, 128).concat()[..5], [1, 29, 1, 28, 1]);
    assert!(!taken(&queue, 1_000).concat().contains(&22));
}

#[test]
fn patient_caller_is_served_although_others_give_up() {
    // A caller who has waited for half of that is patient.
    let queue = queue_of(1 << 20, Duration::from_millis(2_200));
    let _patient = push(&queue, "a", &[20]);
    let gives_up = push(&queue, "a", &[20]);
    std::thread::sleep(Duration::from_millis(1_150));
    drop(gives_up);
    let _newer = [push(&queue, "a", &[21]), push(&queue, "a", &[22])];
    assert_eq!(taken(&queue, 1_000), [[20], [22], [21]]);
}

#[test]
fn users_get_equal_tokens_whatever_their_sentence_lengths() {
    let queue = queue(1 << 20);
    let _long = push(&queue, "long", &[400; 200]);
    let _short: Vec<PendingRequest> = (0..8).map(|_| push(&queue, "short", &[8; 1_000])).collect();
    let passes: Vec<usize> = (0..60).flat_map(|_| taken(&queue, 1_024).concat()).collect();
    let tokens = |length| passes.iter().filter(|&&one| one == length).sum::<usize>();
    let (long, short) = (tokens(400), tokens(8));
    assert!(long.abs_diff(short) <= 1_024, "{long} and {short}");
    assert!(long + short > 60 * 600, "the passes are full: {}", long + short);
}

#[test]
fn user_of_long_sentences_pays_for_them() {
    let queue = queue(1 << 20);
    let _bulk: Vec<PendingRequest> = (0..200).map(|_| push(&queue, "bulk", &[32; 32])).collect();
    let (mut long, mut all) = (0, 0);
    // One at a time: each leaves the user without a backlog.
    let mut pending = push(&queue, "long", &[8_192]);
    for _ in 0..60 {
        let lengths = taken(&queue, 640).concat();
        all += lengths.iter().sum::<usize>();
        if lengths.contains(&8_192) {
            long += 8_192;
            pending = push(&queue, "long", &[8_192]);
        }
    }
    drop(pending);
    assert!(long * 2 <= all + 8_192, "{long} of {all} tokens");
    assert!(long > 0);
}

#[test]
fn idle_threads_get_equal_shares() {
    let queue = queue(10_000);
    let helpers: Vec<_> = (0..3)
        .map(|_| {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || taken(&queue, 1_000).concat().len())
        })
        .collect();
    while queue.lock().idle < 3 {
        std::thread::yield_now();
    }
    let _pending = push(&queue, "a", &[10; 90]);
    let mut sentences: Vec<usize> =
        helpers.into_iter().map(|helper| helper.join().expect("it takes a slice")).collect();
    sentences.sort_unstable();
    assert_eq!(sentences.iter().sum::<usize>(), 90);
    assert!(sentences[2] < 60, "{sentences:?}");
}

#[test]
fn passes_shrink_while_small_requests_meet_a_backlog() {
    let queue = queue(1 << 20);
    let tokens = || taken(&queue, 1_024).concat().iter().sum::<usize>();
    let _bulk: Vec<PendingRequest> = (0..64).map(|_| push(&queue, "a", &[32; 32])).collect();
    assert_eq!(tokens(), 1_024);
    let _more = push(&queue, "b", &[32; 320]);
    assert_eq!(tokens(), 1_024, "two bulk jobs share large passes");
    let _many: Vec<PendingRequest> = (0..200).map(|_| push(&queue, "c", &[100])).collect();
    queue.lock().short_passes_until = None;
    let _small = push(&queue, "d", &[10]);
    for _ in 0..3 {
        assert!(tokens() <= 256);
    }
    std::thread::sleep(SHORT_PASSES_FOR);
    assert!(tokens() > 960);
}

#[test]
fn one_user_leaves_room_for_others() {
    let queue = queue(1_000);
    assert_eq!(Queue::largest_request(1_000), 500);
    let _all = push(&queue, "a", &[100; 5]);
    assert_eq!(rejected(&queue, "a", &[1]).reason(), Reason::Overloaded);
    assert_eq!((queue.admission.rejections.memory.get(), queue.admission.rejections.wait.get()), (1, 0));
    let other = push(&queue, "b", &[250]);
    assert_eq!(rejected(&queue, "b", &[1]).reason(), Reason::Overloaded);
    assert!(
        queue.check(&interactive("b"), 2, None).is_err() && queue.check(&interactive("c"), 2, None).is_ok()
    );
    drop(other);
    assert!(queue.check(&interactive("b"), 2, None).is_ok());
}

#[test]
fn request_beyond_the_maximum_queueing_time_is_rejected() {
    let queue = queue(1 << 20);
    // A thousand tokens a second.
    queue.record_pass(100, Duration::from_millis(100));
    // The last of these waits for 900 tokens: 0.9 s by the estimate, 0.99 s with the margin.
    let _pending: Vec<PendingRequest> = (0..10).map(|_| push(&queue, "a", &[100])).collect();
    // The next one would wait for 1 s by the estimate, the maximum, and for 1.1 s with the margin.
    let error = rejected(&queue, "a", &[100]);
    assert_eq!(error.reason(), Reason::Overloaded);
    assert!(error.message().contains("about 1.1 s, longer than the maximum queueing time of 1 s"), "{error}");
    assert_eq!(error.retry_after(), Some(Duration::from_millis(100)));
    assert_eq!((queue.admission.rejections.memory.get(), queue.admission.rejections.wait.get()), (0, 1));
    // Requests of another user, of another class, or with a sufficient deadline are admitted.
    let _other = push(&queue, "b", &[50]);
    let _large = push(&queue, "a", &[300]);
    assert!(queue.push(&interactive("a"), request(&[100]), 100, in_seconds(5.0)).is_ok());
}

#[test]
fn deadline_that_cannot_be_met_is_rejected_at_once() {
    let queue = queue(1 << 20);
    queue.record_pass(100, Duration::from_millis(100));
    // An empty queue admits, whatever the estimate.
    assert!(queue.check(&interactive("a"), 1_000, in_seconds(0.1)).is_ok());
    let _pending = push(&queue, "a", &[50; 8]);
    let error = queue
        .check(&interactive("a"), 600, in_seconds(0.5))
        .expect_err("that takes 0.7 s, and 0.8 s with the margin");
    assert_eq!(error.reason(), Reason::Overloaded);
    assert!(error.message().contains("cannot finish before its deadline: that takes about 0.8 s"), "{error}");
    let wait = error.retry_after().expect("it names a time");
    assert!((Duration::from_millis(300)..Duration::from_millis(350)).contains(&wait), "{wait:?}");
    assert_eq!((queue.admission.rejections.deadline.get(), queue.admission.rejections.wait.get()), (1, 0));
    assert!(queue.check(&interactive("a"), 600, in_seconds(0.75)).is_err(), "that is too close");
    assert!(queue.check(&interactive("a"), 600, in_seconds(0.9)).is_ok());
}

#[test]
fn estimate_counts_what_another_class_receives_meanwhile() {
    let queue = queue(1 << 22);
    let flow = interactive("a");
    let _backlog: Vec<PendingRequest> = (0..500).map(|_| push(&queue, "a", &[100])).collect();
    for _ in 0..50 {
        // Few tokens of the other class wait at any time, but it gets half of each pass.
        let _other = push(&queue, "a", &[400]);
        let _slices = queue.take(800);
        queue.record_pass(800, Duration::from_millis(80));
    }
    let waiting = queue.lock().waiting.tokens_of_class(&flow, SizeClass::of_call(100));
    let seconds = waiting as f64 / 10_000.0;
    // It takes twice as long, and 2.3 times with the margin.
    assert!(queue.check(&flow, 100, in_seconds(2.2 * seconds)).is_err());
    assert!(queue.check(&flow, 100, in_seconds(2.5 * seconds)).is_ok());
    // The tokens of the request itself take twice as long, too.
    let large = request(&vec![16; waiting / 16]);
    assert!(queue.push(&flow, Arc::clone(&large), 100, in_seconds(4.2 * seconds)).is_err());
    assert!(queue.push(&flow, large, 100, in_seconds(4.6 * seconds)).is_ok());
}

#[test]
fn request_that_passes_the_check_of_its_message_is_admitted() {
    let queue = queue_of(1 << 20, Duration::from_secs(60));
    queue.record_pass(100, Duration::from_millis(100));
    let _pending: Vec<PendingRequest> = (0..40).map(|_| push(&queue, "a", &[100])).collect();
    // The deadlines differ by less than a request takes.
    let (flow, mut passed) = (interactive("a"), Vec::new());
    for milliseconds in (4_400..5_000).step_by(10) {
        let deadline = in_seconds(f64::from(milliseconds) / 1_000.0);
        passed.push(queue.check(&flow, 100, deadline).is_ok());
        if passed.ends_with(&[true]) {
            assert!(queue.push(&flow, request(&[100]), 100, deadline).is_ok(), "{milliseconds} ms");
        }
    }
    assert!(passed.contains(&false) && passed.contains(&true));
}

#[test]
fn request_without_sentences_is_done_at_once() {
    let queue = queue(1_000);
    let mut pending = push(&queue, "a", &[]);
    assert!(pending.next().now_or_never().is_some_and(|next| next.is_none()));
    let _pending = push(&queue, "a", &[QUANTUM]);
    assert_eq!(taken(&queue, 1_000), [[QUANTUM]]);
}

#[test]
fn cancelled_request_leaves_the_queue() {
    let queue = queue(10_000);
    let cancelled = push(&queue, "a", &[100, 900]);
    assert_eq!(taken(&queue, 128), [[100]]);
    let _other = push(&queue, "a", &[50]);
    drop(cancelled);
    assert_eq!(queue.lock().waiting.tokens(), 50);
    assert_eq!(taken(&queue, 1_000), [[50]]);
    assert_eq!(queue.lock().waiting.tokens_of_user("a"), 0);
}

#[tokio::test]
async fn stream_items_fill_the_passes_and_no_more() {
    let queue = queue(1 << 20);
    // A thousand tokens a second: 125 for streams.
    queue.record_pass(100, Duration::from_millis(100));
    let flow = interactive("a");
    // However much the user's calls have in the queue.
    let _calls = push(&queue, "a", &[1_000; 100]);
    let item = || queue.push_item(&flow, request(&[100]));
    let _first = item().await.expect("there is room");
    let mut second = std::pin::pin!(item());
    assert!(second.as_mut().now_or_never().is_none());
    assert!(queue.push_item(&interactive("b"), request(&[100])).now_or_never().is_some());
    while queue.lock().waiting.tokens_of_class(&interactive("a"), SizeClass::Stream) > 0 {
        queue.take(1_000).expect("it is open");
    }
    assert!(second.await.is_ok());
}

#[tokio::test]
async fn close_fails_pending_requests_and_items() {
    let queue = queue(1_000);
    let mut pending = push(&queue, "a", &[500]);
    let flow = interactive("a");
    queue.record_pass(100, Duration::from_millis(100));
    let _item = queue.push_item(&flow, request(&[100])).await.expect("there is room");
    let waiting = queue.push_item(&flow, request(&[400]));
    let mut waiting = std::pin::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    queue.close();
    let result = pending.next().await.expect("it is not done");
    assert_eq!(result.expect_err("it never will be").reason(), Reason::Unavailable);
    assert_eq!(waiting.await.expect_err("it is closed").reason(), Reason::Unavailable);
    assert_eq!(rejected(&queue, "b", &[1]).reason(), Reason::Unavailable);
    assert!(queue.take(1_000).is_none());
}
