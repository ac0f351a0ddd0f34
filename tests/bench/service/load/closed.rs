//! A closed loop: each client sends its next call on the response to the previous one. It measures
//! the maximum throughput; the open loop measures latencies at a given load.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use super::{Generator, Measured, sleep_until};
use crate::{
    client::{Client, Outcome},
    workload::Call,
};

/// Delay of a client after a failed call.
const DELAY_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// The window of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Duration of the load before the measurement.
    pub(crate) warm_up: Duration,
    /// Duration of the measurement.
    pub(crate) duration: Duration,
}

/// Lets all clients send the calls in turn, each with another offset.
pub(crate) async fn closed_loop(clients: &mut [Client], calls: &[Call], window: Window) -> Measured {
    let measured = RefCell::new(Measured::new());
    let from = Instant::now() + window.warm_up;
    let until = from + window.duration;
    let offset = calls.len().div_ceil(clients.len().max(1));
    let each = clients.iter_mut().enumerate().map(|(number, client)| {
        let measured = &measured;
        async move {
            for call in calls.iter().cycle().skip(number * offset) {
                let start = Instant::now();
                if start >= until {
                    break;
                }
                let outcome = client.call(call).await;
                let answered = Instant::now();
                if (from..until).contains(&answered) {
                    let mut measured = measured.borrow_mut();
                    measured.ended(outcome, answered - start);
                    if outcome == Outcome::Served {
                        measured.served(call.sentences);
                    }
                }
                if outcome != Outcome::Served {
                    tokio::time::sleep(DELAY_AFTER_FAILURE).await;
                }
            }
        }
    });
    let measuring = async {
        sleep_until(from).await;
        let generator = Generator::start();
        sleep_until(until).await;
        generator.cpu_time()
    };
    let (_, generator) = tokio::join!(futures::future::join_all(each), measuring);
    let mut measured = measured.into_inner();
    measured.duration = window.duration;
    measured.generator = generator;
    measured
}
