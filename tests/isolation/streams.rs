//! Slowly read streams, and streams of disconnected callers.

use std::{
    net::IpAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use muse_tests::{
    TIMEOUT,
    isolation::{
        attack::Target,
        calls::{Call, Method, Protocol, framed, item},
        frames::{Connection, Event, opening},
        stack::{Settings, Stack},
    },
    until,
};
use prost::Message;
use tokio::process::Command;

use crate::beside_others;

/// Address of the callers.
const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));
/// Items of the slow reader.
const ITEMS: usize = 10_000;
/// Size of an answer in bytes, rounded down.
const ANSWER: u32 = 2_050;
/// Interval between two reads of the slow reader.
const EACH: Duration = Duration::from_millis(5);
/// Duration of the slow reading.
const SLOW_FOR: Duration = Duration::from_secs(5);
/// Maximum time until an abandoned stream has ended in the embedder.
const GONE_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_of_a_stream_is_not_disconnected() {
    let _guard = beside_others().await;
    let mut stack = Stack::start(&Settings::default()).await;
    let gateway = stack.gateway.address;
    let call = Call::new(gateway, Method::EmbedStream, Protocol::Grpc, Some(&stack.admin), "admin");
    let mut connection = Connection::open(CALLER, gateway, 2 * ANSWER).await.expect("it is accepted");
    let id = connection.open_stream(&call.head, false);
    // A separate DATA frame for each item, as gRPC's C library sends them.
    for number in 0..ITEMS {
        connection.send(id, call.body.clone(), number + 1 == ITEMS);
    }
    connection.flush().await.expect("it is open");
    let (mut received, mut granted, start) = (0, 2 * ANSWER as usize, Instant::now());
    loop {
        let answered = format!("after {received} bytes");
        for event in connection.receive_within(EACH).await.expect(&answered) {
            match event {
                Event::Data(_, length) => received += length,
                Event::End(_) => {
                    assert!(received > ITEMS * ANSWER as usize, "all items are answered: {received} bytes");
                    stack.assert_running();
                    stack.stop().await;
                    return;
                }
                Event::Reset(_, code) => panic!("{answered}: reset with error code {code}"),
                Event::Head(_) => {}
            }
        }
        // Slow at first, then as fast as possible.
        let slow = start.elapsed() < SLOW_FOR;
        let window = if slow { 2 * ANSWER } else { 1 << 20 };
        if slow {
            tokio::time::sleep(EACH).await;
        }
        let more = (received + window as usize).saturating_sub(granted).min(if slow {
            ANSWER as usize
        } else {
            1 << 20
        });
        if more > 0 {
            granted += more;
            connection.grant(id, u32::try_from(more).expect("it is a window"));
        }
        connection.flush().await.expect(&answered);
        assert!(start.elapsed() < TIMEOUT, "{answered}: no further answers");
    }
}

/// Sends items until the windows in both directions are full.
async fn fill(connection: &mut Connection, call: &Call) -> u32 {
    let id = connection.open_stream(&call.head, false);
    let item = framed(&item(1_000).encode_to_vec());
    let mut full = 0;
    while full < 20 {
        if connection.is_blocked(id) {
            full += 1;
            let _ = connection.receive_within(Duration::from_millis(20)).await.expect("it is open");
        } else {
            full = 0;
            connection.send(id, item.clone(), false);
        }
        connection.flush().await.expect("it is open");
    }
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_callers_who_left_end_in_the_embedder() {
    let _guard = beside_others().await;
    let mut stack = Stack::start(&Settings::default()).await;
    let gateway = stack.gateway.address;
    let target = Target::new(&stack).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = stack.in_flight().await;
    let call = |protocol| Call::new(gateway, Method::EmbedStream, protocol, Some(target.token()), "mallory");

    for ending in ["RST_STREAM", "GOAWAY", "close", "RST", "kill -9"] {
        if ending == "kill -9" {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("frames");
            let items = framed(&item(1_000).encode_to_vec()).repeat(60);
            std::fs::write(&file, opening(&call(Protocol::Grpc).head, &items)).unwrap();
            let script = format!(
                "exec 3<>/dev/tcp/{}/{}; cat \"$0\" >&3; exec sleep 60",
                gateway.ip(),
                gateway.port()
            );
            let mut client = Command::new("bash")
                .args(["-c", &script])
                .arg(&file)
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            // The windows fill.
            tokio::time::sleep(Duration::from_secs(1)).await;
            until(async || (stack.embedder().in_flight().await.unwrap() > idle[1]).then_some(())).await;
            client.kill().await.unwrap();
        } else {
            let mut connection = Connection::open(CALLER, gateway, 65_535).await.unwrap();
            let id = fill(&mut connection, &call(Protocol::Grpc)).await;
            assert!(stack.embedder().in_flight().await.unwrap() > idle[1], "the stream is open");
            match ending {
                "RST_STREAM" => {
                    connection.reset(id);
                    connection.flush().await.unwrap();
                    let settled = stack.settle(&idle, GONE_WITHIN).await;
                    assert_eq!(settled, Ok(()), "{ending}; idle: {idle:?}");
                }
                "GOAWAY" => {
                    connection.go_away();
                    connection.flush().await.unwrap();
                    connection.close(false).unwrap();
                }
                ending => connection.close(ending == "RST").unwrap(),
            }
        }
        let settled = stack.settle(&idle, GONE_WITHIN).await;
        assert_eq!(settled, Ok(()), "{ending}; idle: {idle:?}");
    }
    stack.assert_running();
    stack.stop().await;
}
