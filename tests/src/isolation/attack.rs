//! Cancels calls of one method, at one stage, over one protocol.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::AddAssign,
    thread,
    time::{Duration, Instant},
};

use muse_proto::v1::RefreshTokenRequest;
use muse_proto::v1::auth_service_client::AuthServiceClient;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    calls::{Call, Method, Protocol, Stage, chunk, framed, item},
    frames::{Connection, Event, connect},
    stack::Stack,
};
use crate::{bearing, channel};

/// The source address of attacks, which differs from that of the canary.
pub const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// The user whose calls are cancelled.
pub const USER: &str = "mallory";
/// Number of streams that are opened and reset together on one connection.
const WAVE: usize = 100;
/// The same with 64 connections.
const WAVE_OF_MANY: usize = 16;
/// Number of concurrently open streams of the user, below the gateway's limit.
const OPEN_STREAMS: usize = 24;
/// Maximum time until a response reaches the stage; then the call is cancelled anyway.
const STAGE_WITHIN: Duration = Duration::from_secs(10);
/// Windows are considered full if nothing could be written in this time.
const FULL_AFTER: Duration = Duration::from_millis(50);
/// Milliseconds between the message and the reset, in rotation.
const DELAYS: [u64; 4] = [0, 1, 2, 5];
/// Number of tokens for revocations.
const DISPOSABLE: usize = 64;

/// One combination of the parameters of cancelled calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Combination {
    /// The method.
    pub method: Method,
    /// The protocol.
    pub protocol: Protocol,
    /// The stage at which calls are cancelled.
    pub stage: Stage,
    /// Number of concurrent connections.
    pub connections: usize,
    /// Whether the calls have a token.
    pub token: bool,
}

impl Combination {
    /// All combinations of a method.
    #[must_use]
    pub fn of(method: Method) -> Vec<Self> {
        let mut found = Vec::new();
        for &protocol in method.protocols() {
            for &stage in method.stages() {
                for connections in [1, 64] {
                    for token in [true, false] {
                        // Without a required token the response is only an error.
                        let possible = if method.needs_token() {
                            token || matches!(stage, Stage::Headers | Stage::Message | Stage::Head)
                        } else {
                            !token
                        };
                        if possible {
                            found.push(Self { method, protocol, stage, connections, token });
                        }
                    }
                }
            }
        }
        found
    }
}

/// Numbers of calls by result.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// All calls.
    pub calls: usize,
    /// Calls that were cancelled at their stage.
    pub cancelled: usize,
    /// Calls that ended before their stage.
    pub ended: usize,
    /// Calls whose response did not reach the stage in time.
    pub late: usize,
    /// Connections of the attacker that the gateway closed or did not accept, by reason.
    pub closed: HashMap<String, usize>,
    /// Duration of the attack.
    pub duration: Duration,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.cancelled += other.cancelled;
        self.ended += other.ended;
        self.late += other.late;
        self.duration += other.duration;
        for (reason, count) in other.closed {
            *self.closed.entry(reason).or_default() += count;
        }
    }
}

impl Outcome {
    fn closed(&mut self, failure: &io::Error) {
        *self.closed.entry(failure.to_string()).or_default() += 1;
    }
}

/// The target of an attack, and the attacker's tokens.
#[derive(Debug, Clone)]
pub struct Target {
    gateway: SocketAddr,
    access: String,
    refresh: String,
    disposable: Vec<String>,
}

impl Target {
    /// Adds the attacker as a user.
    pub async fn new(stack: &Stack) -> Self {
        let tokens = stack.add_user(USER).await;
        let gateway = stack.gateway.address;
        let mut target = Self {
            gateway,
            access: tokens.access_token,
            refresh: tokens.refresh_token,
            disposable: Vec::new(),
        };
        target.renew().await;
        target
    }

    /// Creates new tokens for revocations.
    ///
    /// # Panics
    ///
    /// If the auth service issues none.
    pub async fn renew(&mut self) {
        let mut auth = AuthServiceClient::new(channel(self.gateway));
        self.disposable.clear();
        for _ in 0..DISPOSABLE {
            let answer = auth.refresh_token(bearing(&self.refresh, RefreshTokenRequest {})).await;
            self.disposable.push(answer.expect("the token is valid").into_inner().access_token);
        }
    }

    /// The access token of the attacker.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.access
    }

    /// The encoded calls of a combination, used in rotation.
    fn calls(&self, combination: Combination) -> Vec<Call> {
        let Combination { method, protocol, token, .. } = combination;
        let call = |token| Call::new(self.gateway, method, protocol, token, USER);
        match method {
            _ if !token => vec![call(None)],
            Method::RefreshToken => vec![call(Some(&*self.refresh))],
            Method::RevokeToken => self.disposable.iter().map(|token| call(Some(token))).collect(),
            _ => vec![call(Some(&*self.access))],
        }
    }

    /// Makes `calls` calls on a thread of low priority, because the attack shares the processors
    /// with the services.
    ///
    /// # Panics
    ///
    /// If the thread panics.
    pub async fn attack(&self, combination: Combination, calls: usize) -> Outcome {
        let (sender, done) = oneshot::channel();
        let (gateway, kinds) = (self.gateway, self.calls(combination));
        let attacker = thread::spawn(move || {
            // On Linux this sets the priority of the thread.
            let _ = rustix::process::nice(10);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("threads can be started");
            let _ = sender.send(runtime.block_on(run(gateway, combination, &kinds, calls)));
        });
        let outcome = done.await.expect("the attack ends without a panic");
        attacker.join().expect("it has ended");
        outcome
    }
}

async fn run(gateway: SocketAddr, combination: Combination, kinds: &[Call], calls: usize) -> Outcome {
    let started = Instant::now();
    let connections = combination.connections;
    let parts = (0..connections).map(|number| {
        let share = calls / connections + usize::from(number < calls % connections);
        let attacker = Attacker { gateway, combination, kinds, number };
        async move {
            if combination.protocol.is_http1() {
                attacker.over_http1(share).await
            } else {
                attacker.over_http2(share).await
            }
        }
    });
    let mut total = Outcome::default();
    for part in futures::future::join_all(parts).await {
        total += part;
    }
    total.duration = started.elapsed();
    total
}

/// The part of an attack on one connection.
#[derive(Debug)]
struct Attacker<'a> {
    gateway: SocketAddr,
    combination: Combination,
    kinds: &'a [Call],
    number: usize,
}

impl Attacker<'_> {
    /// Makes waves of calls over one connection; reconnects if the gateway closes it.
    async fn over_http2(&self, calls: usize) -> Outcome {
        let Combination { method, stage, connections, .. } = self.combination;
        let window = match stage {
            // The window blocks the response, so each call is cancelled at its stage.
            Stage::Head => 0,
            Stage::Middle => 16,
            _ => 65_535,
        };
        let mut wave = if connections == 1 { WAVE } else { WAVE_OF_MANY };
        if method == Method::EmbedStream && stage != Stage::Headers {
            wave = (OPEN_STREAMS / connections).max(1);
        }
        let mut outcome = Outcome::default();
        let (mut connection, mut failures) = (None, 0);
        while outcome.calls < calls && failures < 100 {
            let mut open = match connection.take() {
                Some(open) => open,
                None => match Connection::open(ATTACKER, self.gateway, window).await {
                    Ok(open) => open,
                    Err(failure) => {
                        outcome.closed(&failure);
                        failures += 1;
                        sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let count = wave.min(calls - outcome.calls).min(open.max_streams.max(1));
            let number = outcome.calls;
            outcome.calls += count;
            match self.wave(&mut open, count, number, &mut outcome).await {
                Ok(()) => connection = Some(open),
                Err(failure) => outcome.closed(&failure),
            }
        }
        outcome
    }

    /// Starts calls together and cancels them at the stage.
    async fn wave(
        &self,
        connection: &mut Connection,
        count: usize,
        number: usize,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let Combination { method, stage, .. } = self.combination;
        let mut open: HashMap<u32, usize> = HashMap::new();
        for at in 0..count {
            let call = &self.kinds[(number + at + self.number) % self.kinds.len()];
            let id = connection.open_stream(&call.head, false);
            if stage != Stage::Headers {
                connection.send(id, call.body.clone(), !method.streams_requests());
            }
            if stage == Stage::Items {
                for _ in 0..8 {
                    connection.send(id, call.body.clone(), false);
                }
            }
            open.insert(id, 0);
        }
        match stage {
            Stage::Headers | Stage::Message => {
                let delay = Duration::from_millis(DELAYS[(number / count + self.number) % DELAYS.len()]);
                // Without a delay everything is in one segment.
                if !delay.is_zero() {
                    connection.flush().await?;
                    let end = Instant::now() + delay;
                    while let Some(left) =
                        end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
                    {
                        for event in connection.receive_within(left).await? {
                            note_end(event, connection, &mut open, outcome);
                        }
                    }
                }
            }
            Stage::Head | Stage::Middle | Stage::Items => {
                connection.flush().await?;
                let end = Instant::now() + STAGE_WITHIN;
                let enough = if stage == Stage::Items { 4_096 } else { 1 };
                while !open.is_empty() && Instant::now() < end {
                    for event in connection.receive_within(Duration::from_secs(1)).await? {
                        let reached = match event {
                            Event::Head(id) => stage == Stage::Head && open.contains_key(&id),
                            Event::Data(id, length) => open.get_mut(&id).is_some_and(|received| {
                                *received += length;
                                *received >= enough
                            }),
                            _ => false,
                        };
                        if reached && open.remove(&event.stream()).is_some() {
                            connection.reset(event.stream());
                            outcome.cancelled += 1;
                        }
                        note_end(event, connection, &mut open, outcome);
                    }
                    connection.flush().await?;
                }
                // Calls that did not reach the stage.
                outcome.late += open.len();
                for (id, _) in open.drain() {
                    connection.reset(id);
                }
            }
            Stage::Unread => {
                let item = framed(&item(1_000).encode_to_vec());
                let mut moved = Instant::now();
                while moved.elapsed() < FULL_AFTER && !open.is_empty() {
                    for &id in open.keys() {
                        // As many items as the window allows, and one more, which shows that it is
                        // full.
                        for _ in 0..64 {
                            if connection.is_blocked(id) {
                                break;
                            }
                            connection.send(id, item.clone(), false);
                            moved = Instant::now();
                        }
                    }
                    connection.flush().await?;
                    for event in connection.receive_within(Duration::from_millis(5)).await? {
                        note_end(event, connection, &mut open, outcome);
                    }
                }
            }
        }
        for &id in open.keys() {
            connection.reset(id);
        }
        outcome.cancelled += open.len();
        connection.flush().await
    }

    /// Makes calls sequentially, each on its own connection, and closes it.
    async fn over_http1(&self, calls: usize) -> Outcome {
        let mut outcome = Outcome::default();
        let mut failures = 0;
        while outcome.calls < calls && failures < 100 {
            let call = &self.kinds[(outcome.calls + self.number) % self.kinds.len()];
            match self.close_one(call, outcome.calls).await {
                Ok(true) => outcome.cancelled += 1,
                Ok(false) => outcome.ended += 1,
                Err(failure) if failure.kind() == io::ErrorKind::TimedOut => outcome.late += 1,
                Err(failure) => {
                    outcome.closed(&failure);
                    failures += 1;
                }
            }
            outcome.calls += 1;
        }
        outcome
    }

    /// Returns whether the call was cancelled at its stage.
    async fn close_one(&self, call: &Call, number: usize) -> io::Result<bool> {
        let Combination { method, stage, .. } = self.combination;
        let mut socket = timeout(STAGE_WITHIN, connect(ATTACKER, self.gateway)).await??;
        // Alternately with FIN and RST.
        if number.is_multiple_of(2) {
            socket.set_zero_linger()?;
        }
        let body = if method.streams_requests() { chunk(&call.body) } else { call.body.to_vec() };
        socket.write_all(&call.head1).await?;
        if stage == Stage::Headers {
            socket.write_all(&body[..body.len() / 2]).await?;
        } else {
            socket.write_all(&body).await?;
        }
        let mut buffer = vec![0; 16 << 10];
        let enough = match stage {
            Stage::Headers | Stage::Message => {
                sleep(Duration::from_millis(DELAYS[(number + self.number) % DELAYS.len()])).await;
                return Ok(true);
            }
            Stage::Head => 1,
            Stage::Middle => 600,
            Stage::Items => {
                for _ in 0..8 {
                    socket.write_all(&body).await?;
                }
                4_096
            }
            Stage::Unread => {
                let item = chunk(&framed(&item(1_000).encode_to_vec())).repeat(16);
                while timeout(FULL_AFTER, socket.write_all(&item)).await.is_ok_and(|written| written.is_ok())
                {
                }
                return Ok(true);
            }
        };
        let mut received = 0;
        while received < enough {
            match timeout(STAGE_WITHIN, socket.read(&mut buffer)).await {
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(Ok(0)) => return Ok(false),
                Ok(read) => received += read?,
            }
        }
        Ok(true)
    }
}

/// Counts a call that ends before it is cancelled.
fn note_end(
    event: Event,
    connection: &mut Connection,
    open: &mut HashMap<u32, usize>,
    outcome: &mut Outcome,
) {
    if let Event::End(id) | Event::Reset(id, _) = event
        && open.remove(&id).is_some()
    {
        connection.forget(id);
        outcome.ended += 1;
    }
}
