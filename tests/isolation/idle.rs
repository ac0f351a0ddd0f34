//! Idle calls, streams and connections, and incomplete bodies.

use std::time::{Duration, Instant};

use muse_tests::{
    isolation::{
        attack::{ATTACKER, Target},
        calls::{Call, Method, Protocol},
        canary::{ADDRESS, Canary},
        frames::{Connection, Event, connect},
        stack::{Settings, Stack, channel_from, login},
    },
    until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{alone, beside_others};

/// Timeout of an incomplete body, 30 s, with a margin.
const BODY_WITHIN: Duration = Duration::from_secs(40);

/// Opens `count` idle streams on as many connections as necessary. Returns the connections, and the
/// number of calls that ended immediately.
async fn open_idle(stack: &Stack, call: &Call, with_body: bool, count: usize) -> (Vec<Connection>, usize) {
    let (mut connections, mut opened, mut ended) = (Vec::new(), 0, 0);
    while opened < count {
        let mut connection =
            Connection::open(ATTACKER, stack.gateway.address, 65_535).await.expect("it is accepted");
        let here = connection.max_streams.min(count - opened).min(1_000);
        for _ in 0..here {
            let id = connection.open_stream(&call.head, false);
            if with_body {
                connection.send(id, call.body.clone(), false);
            }
        }
        opened += here;
        connection.flush().await.expect("it is open");
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end {
            let events = connection.receive_within(Duration::from_millis(100)).await.unwrap_or_default();
            ended += events.iter().filter(|event| matches!(event, Event::End(_) | Event::Reset(..))).count();
        }
        connections.push(connection);
    }
    (connections, ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_bodies_time_out_and_disturb_no_other_user() {
    let _guard = beside_others().await;
    let mut stack = Stack::start(&Settings::default()).await;
    let gateway = stack.gateway.address;
    let target = Target::new(&stack).await;
    let canary = Canary::start(&stack).await;

    let mut halves = Vec::new();
    let start = Instant::now();
    for (method, protocol) in [
        (Method::RestEmbed, Protocol::Http1),
        (Method::OpenAi, Protocol::Http1),
        (Method::RestLogin, Protocol::Http1),
        (Method::Embed, Protocol::WebHttp1),
        (Method::Login, Protocol::WebHttp1),
    ] {
        let token = method.needs_token().then(|| target.token());
        let call = Call::new(gateway, method, protocol, token, "mallory");
        let mut socket = connect(ATTACKER, gateway).await.expect("it is accepted");
        socket.write_all(&call.head1).await.expect("it is open");
        socket.write_all(&call.body[..call.body.len() / 2]).await.expect("it is open");
        halves.push((method, socket));
    }
    for (method, mut socket) in halves {
        let left = BODY_WITHIN.saturating_sub(start.elapsed());
        let mut response = Vec::new();
        let ended = timeout(left, socket.read_to_end(&mut response)).await;
        assert!(ended.is_ok(), "{method}: the gateway still waits for an incomplete body");
    }
    let noticed = canary.take();
    assert!(noticed.failed().is_empty(), "{:?}", noticed.failed());
    assert!(noticed.items > 0 && !noticed.latencies.is_empty(), "other users are served");
    stack.assert_running();
    drop(canary);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_calls_disturb_no_other_user() {
    let _guard = alone().await;
    let mut stack = Stack::start(&Settings::default()).await;
    let gateway = stack.gateway.address;
    let target = Target::new(&stack).await;
    let canary = Canary::start(&stack).await;

    // Login needs no token.
    let call = Call::new(gateway, Method::Login, Protocol::Grpc, None, "mallory");
    let (idle_logins, _) = open_idle(&stack, &call, false, 1_030).await;
    for _ in 0..3 {
        let login_start = Instant::now();
        let answer = timeout(Duration::from_secs(10), login(channel_from(ADDRESS, gateway), "bob")).await;
        answer.expect("logins are served").expect("logins are served");
        assert!(login_start.elapsed() < Duration::from_secs(5), "{:?}", login_start.elapsed());
    }
    let noticed = canary.take();
    assert!(noticed.failed().is_empty(), "{:?}", noticed.failed());

    // Streams of one user.
    let call = Call::new(gateway, Method::EmbedStream, Protocol::Grpc, Some(target.token()), "mallory");
    let (idle_streams, ended) = open_idle(&stack, &call, true, 2_000).await;
    assert!(ended > 1_500, "most streams are rejected: {ended} of 2,000");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let noticed = canary.take();
    assert!(noticed.failed().is_empty(), "{:?}", noticed.failed());
    assert!(noticed.items > 0 && noticed.latencies.len() > 50, "other users are served");
    drop((idle_logins, idle_streams));

    stack.assert_running();
    drop(canary);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_per_address_are_bounded_and_others_connect() {
    let _guard = beside_others().await;
    let settings = Settings {
        environment: &[("MAX_CONNECTIONS_PER_ADDRESS", "50"), ("MAX_CONNECTIONS", "200")],
        ..Settings::default()
    };
    let mut stack = Stack::start(&settings).await;
    let canary = Canary::start(&stack).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.extend(connect(ATTACKER, stack.gateway.address).await);
    }
    let open = until(async || {
        let mut open = 0;
        for socket in &mut silent {
            // Connections beyond the limit are closed, possibly after a response.
            let mut buffer = [0; 1024];
            open += usize::from(timeout(Duration::from_millis(5), socket.read(&mut buffer)).await.is_err());
        }
        (open <= 50).then_some(open)
    })
    .await;
    assert!(open >= 1, "no connection is open");
    let answer = login(channel_from(ADDRESS, stack.gateway.address), "bob").await;
    assert!(answer.is_ok(), "{answer:?}");
    let noticed = canary.take();
    assert!(noticed.failed().is_empty(), "{:?}", noticed.failed());
    stack.assert_running();
    drop((silent, canary));
    stack.stop().await;
}
