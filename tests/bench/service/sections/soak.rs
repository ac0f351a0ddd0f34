//! Memory over time at full load, with requests and sentences of all lengths.

use std::{cell::RefCell, time::Duration};

use super::{Bench, CLIENTS};
use crate::{
    figures::{Figures, Short},
    load::{Window, closed_loop},
    report::{Table, Target, progress},
};

/// Number of samples: one every ten seconds for ten minutes.
const SAMPLES: u32 = 60;
/// Number of samples in a tenth of the time.
const TENTH: usize = SAMPLES as usize / 10;
/// Number of different requests.
const CALLS: usize = 500;
/// Maximum number of sentences per request.
const MOST: usize = 64;

/// Measures the growth of memory from the second to the last tenth of the time; the first tenth
/// fills caches.
pub(crate) async fn measure(bench: &mut Bench<'_>) {
    progress("soak");
    let calls = bench.workload.random_calls(CALLS, MOST);
    let mut clients = bench.grpc_clients(CLIENTS).await;
    let duration = Duration::from_secs_f64(bench.options.soak_seconds);
    let samples = RefCell::new(Vec::new());
    let sampling = async {
        let mut ticks = tokio::time::interval(duration / SAMPLES);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            samples.borrow_mut().push(bench.programs.pss_mb());
        }
    };
    let window = Window { warm_up: Duration::ZERO, duration };
    let measured = tokio::select! {
        measured = closed_loop(&mut clients, &calls, window) => measured,
        () = sampling => unreachable!("it runs until the load ends"),
    };
    let mut samples = samples.into_inner();
    samples.truncate(SAMPLES as usize);
    let median = |part: &[f64]| part.iter().copied().collect::<Figures>().median();
    let early = median(samples.get(TENTH..2 * TENTH).unwrap_or_default());
    let late = median(&samples[samples.len().saturating_sub(TENTH)..]);
    let growth = (late / early - 1.0) * 100.0;
    let seconds = duration.as_secs_f64();
    bench.report.row(
        format!("growth of PSS in {seconds:.0} s at full load, after the first tenth"),
        "%",
        Target::AtMost(3.0),
        Figures::from_iter([growth]),
    );
    let mut table = Table::new(&["seconds", "PSS, MB"]);
    for (number, sample) in samples.iter().enumerate() {
        let at = f64::from(number as u32 + 1) * seconds / f64::from(SAMPLES);
        table.line(&[Short(at).to_string(), format!("{sample:.1}")]);
    }
    let text = format!(
        "{CLIENTS} clients, 1 to {MOST} sentences per request of 1 to 20 times the usual length: {} sentences/s, \
         p99 {} ms. {}\n\n{}",
        Short(measured.sentences_per_second()),
        Short(measured.milliseconds(0.99)),
        measured.failures_by_outcome(),
        table.text()
    );
    bench.report.detail("Memory over time", &text);
}
