//! The worst requests from many clients, with the memory limits of deploy/kubernetes.

use std::{
    env, fs,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use muse_test_support::{Requirement, skip};
use muse_tests::{
    isolation::{
        attack::Target,
        calls::{Call, Method, Protocol, framed, item},
        canary::Canary,
        cgroup::Cgroup,
        frames::{Connection, connect},
        stack::{Process, Settings, Stack},
    },
    root,
};
use prost::Message;
use tokio::{io::AsyncWriteExt, task::JoinSet, time::timeout};

use crate::{alone, shapes::SHAPES};

/// Number of concurrent clients.
const CLIENTS: usize = 64;
/// Duration of the load in seconds: variable and default.
const SECONDS: (&str, u64) = ("ISOLATION_SECONDS", 10);
/// Maximum growth of a service's memory after the load.
const MAX_RETAINED: u64 = 64 << 20;
/// Maximum time until memory is returned.
const RETURNED_WITHIN: Duration = Duration::from_secs(30);
/// Time for which a client does not read.
const UNREAD_FOR: Duration = Duration::from_secs(3);
const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 5));

/// The memory limit of a service in the Kubernetes files, in bytes.
fn limit(service: &str) -> u64 {
    let file = root().join(format!("deploy/kubernetes/base/{service}.yaml"));
    let text = fs::read_to_string(file).expect("the file is in the checkout");
    let (_, limits) = text.split_once("limits:").expect("there are limits");
    let value =
        limits.lines().find_map(|line| line.trim().strip_prefix("memory:")).expect("of memory").trim();
    let (number, unit) = value.split_at(value.len() - 2);
    let unit = match unit {
        "Mi" => 20,
        "Gi" => 30,
        unit => panic!("unknown unit {unit}"),
    };
    number.parse::<u64>().expect("a number") << unit
}

fn cgroups() -> std::io::Result<[Cgroup; 3]> {
    let group = |service| Cgroup::new(service, limit(service));
    Ok([group("auth")?, group("embedder")?, group("gateway")?])
}

/// What the clients send, in rotation.
#[derive(Debug)]
enum Load {
    /// A request whose response is read.
    Shape(usize, Call),
    /// A request without its last bytes.
    Half(Call),
    /// A request whose response is not read.
    Unread(Call),
    /// A stream with full windows, whose connection is then reset.
    Stream(Call),
}

async fn client(
    stack: Arc<Stack>,
    loads: Arc<Vec<Load>>,
    mut turn: usize,
    until: Instant,
    sent: Arc<AtomicUsize>,
) {
    while Instant::now() < until {
        let load = &loads[turn % loads.len()];
        turn += 1;
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_secs(1);
        // Rejections and closed connections are as good as responses.
        let _ = timeout(left, send(&stack, load)).await;
        sent.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

async fn send(stack: &Stack, load: &Load) -> std::io::Result<()> {
    match load {
        Load::Shape(shape, call) => {
            SHAPES[*shape].send(stack, CALLER, call).await?;
        }
        Load::Half(call) => {
            let mut socket = connect(CALLER, stack.gateway.address).await?;
            socket.write_all(&call.head1).await?;
            socket.write_all(&call.body[..call.body.len() - call.body.len() / 16]).await?;
            tokio::time::sleep(UNREAD_FOR).await;
        }
        Load::Unread(call) => {
            let mut socket = connect(CALLER, stack.gateway.address).await?;
            socket.write_all(&call.head1).await?;
            socket.write_all(&call.body).await?;
            tokio::time::sleep(UNREAD_FOR).await;
        }
        Load::Stream(call) => {
            let mut connection = Connection::open(CALLER, stack.gateway.address, 65_535).await?;
            let id = connection.open_stream(&call.head, false);
            let item = framed(&item(1_000).encode_to_vec());
            let end = Instant::now() + UNREAD_FOR;
            while Instant::now() < end {
                if connection.is_blocked(id) {
                    let _ = connection.receive_within(Duration::from_millis(50)).await?;
                } else {
                    connection.send(id, item.clone(), false);
                }
                connection.flush().await?;
            }
            connection.close(true)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn worst_requests_kill_no_service_within_its_memory_limit() {
    let _guard = alone().await;
    let cgroups = match cgroups() {
        Ok(cgroups) => cgroups,
        Err(failure) => {
            skip(Requirement::MemoryCgroup, format_args!("a memory cgroup cannot be made here: {failure}"));
            return;
        }
    };
    let seconds = env::var(SECONDS.0).ok().map_or(SECONDS.1, |seconds| seconds.parse().expect("seconds"));
    let stack = Stack::start(&Settings { cgroups: Some(&cgroups), ..Settings::default() }).await;
    let gateway = stack.gateway.address;
    let target = Target::new(&stack).await;
    let canary = Canary::start(&stack).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _ = canary.take();
    let idle: Vec<u64> = stack.processes().map(Process::resident).collect();

    let size = (16 << 20) - 64;
    let mut loads: Vec<Load> = SHAPES
        .iter()
        .enumerate()
        .map(|(number, shape)| Load::Shape(number, shape.call(&stack, target.token(), size)))
        .collect();
    let json = SHAPES.iter().find(|shape| shape.path == "/embed" && shape.name == "JSON, unknown objects");
    loads.push(Load::Half(json.expect("there is one").call(&stack, target.token(), size)));
    let many = serde_json::json!({ "sentence": vec!["a"; 4_096] }).to_string();
    let bearer = format!("Bearer {}", target.token());
    let fields = [("content-type", "application/json"), ("authorization", &*bearer)];
    loads.push(Load::Unread(Call::from_fields(&gateway.to_string(), "/embed", &fields, many.into(), false)));
    let call = Call::new(gateway, Method::EmbedStream, Protocol::Grpc, Some(target.token()), "mallory");
    loads.push(Load::Stream(call));

    let (stack, loads, sent) = (Arc::new(stack), Arc::new(loads), Arc::new(AtomicUsize::new(0)));
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        // Different clients start with different requests.
        let turn = number * 7;
        clients.spawn(client(Arc::clone(&stack), Arc::clone(&loads), turn, until, Arc::clone(&sent)));
    }
    clients.join_all().await;
    let noticed = canary.take();
    drop(loads);
    let mut stack = Arc::into_inner(stack).expect("the clients have ended");
    println!(
        "{} requests in {seconds} s; canary: {} served, p50 {:.0} ms, p99 {:.0} ms, {} items, failures: {:?}",
        sent.load(Ordering::Relaxed),
        noticed.latencies.len(),
        noticed.latency(0.5),
        noticed.latency(0.99),
        noticed.items,
        noticed.failed(),
    );
    for (group, process) in cgroups.iter().zip(stack.processes()) {
        let peak = group.peak().unwrap_or_default() >> 20;
        println!("{}: peak of the cgroup {peak} MiB, OOM kills {:?}", process.name, group.oom_kills());
    }
    stack.assert_running();
    for group in &cgroups {
        assert_eq!(group.oom_kills().ok(), Some(0));
    }
    assert!(sent.load(Ordering::Relaxed) > 0);
    assert!(noticed.failed().is_empty(), "{:?}", noticed.failed());
    assert!(!noticed.latencies.is_empty() && noticed.items > 0, "another user is served");

    // The services return freed memory to the system.
    let end = Instant::now() + RETURNED_WITHIN;
    loop {
        let now: Vec<u64> = stack.processes().map(Process::resident).collect();
        let retained: Vec<u64> = now.iter().zip(&idle).map(|(now, idle)| now.saturating_sub(*idle)).collect();
        if retained.iter().all(|&retained| retained <= MAX_RETAINED) {
            break;
        }
        let mib: Vec<u64> = retained.iter().map(|bytes| bytes >> 20).collect();
        assert!(Instant::now() < end, "auth, embedder and gateway retain {mib:?} MiB");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    drop(canary);
    stack.stop().await;
}
