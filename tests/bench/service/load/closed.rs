//! A closed loop: each client asks again as soon as it has its answer. It shows what the service can do at most; for
//! latencies at a given load see the open loop.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use super::{Generator, Measured, sleep_until};
use crate::{
    client::{Client, Outcome},
    workload::Call,
};

/// How long a client that was refused waits before it asks again.
const AFTER_REFUSAL: Duration = Duration::from_millis(10);

/// When to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Load before the measuring begins.
    pub(crate) warm_up: Duration,
    /// How long to measure.
    pub(crate) duration: Duration,
}

/// Has all clients ask the calls in turn, each from another one on.
pub(crate) async fn closed_loop(clients: &mut [Client], calls: &[Call], window: Window) -> Measured {
    let measured = RefCell::new(Measured::new());
    let from = Instant::now() + window.warm_up;
    let until = from + window.duration;
    let apart = calls.len().div_ceil(clients.len().max(1));
    let each = clients.iter_mut().enumerate().map(|(number, client)| {
        let measured = &measured;
        async move {
            for call in calls.iter().cycle().skip(number * apart) {
                let asked = Instant::now();
                if asked >= until {
                    break;
                }
                let outcome = client.call(call).await;
                let answered = Instant::now();
                if (from..until).contains(&answered) {
                    let mut measured = measured.borrow_mut();
                    measured.ended(outcome, answered - asked);
                    if outcome == Outcome::Served {
                        measured.served(call.sentences);
                    }
                }
                if outcome != Outcome::Served {
                    tokio::time::sleep(AFTER_REFUSAL).await;
                }
            }
        }
    });
    let accounting = async {
        sleep_until(from).await;
        let generator = Generator::start();
        sleep_until(until).await;
        generator.took()
    };
    let (_, generator) = tokio::join!(futures::future::join_all(each), accounting);
    let mut measured = measured.into_inner();
    measured.duration = window.duration;
    measured.generator = generator;
    measured
}
