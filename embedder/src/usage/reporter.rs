//! The task that reports usage to the auth service.
//!
//! Reports are numbered, and one is outstanding at a time: it is sent unchanged until the auth
//! service has acknowledged it, which counts it once however often it arrives. Meanwhile further
//! usage is [pending](super::pending).

use std::time::Duration;

use muse_proto::v1::{ReportUsageRequest, UsageCount};
use muse_server::backoff::{Backoff, random, reason};
use muse_telemetry::{
    log_throttle::LogThrottle,
    metrics::{IntCounter, Metrics},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::{debug, error, warn};

use super::pending::PendingUsage;

/// Time between two reports. If the auth service responds, a process that is killed loses the usage
/// of this time at most; otherwise all that is pending.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// Timeout of the response to a report.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The bounds of the back-off before a report is repeated.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// Time for the last reports at a shutdown, after the last call.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// A running reporter.
#[derive(Debug)]
pub(crate) struct UsageReporter {
    task: JoinHandle<()>,
    finishing: CancellationToken,
}

impl UsageReporter {
    /// Starts the task, which sends the usage of `pending` with `send`.
    pub(crate) fn start<S, F>(pending: PendingUsage, metrics: &Metrics, send: S) -> Self
    where
        S: Fn(ReportUsageRequest) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let reports = ReportTask {
            pending,
            send,
            reporter: format!("{:016x}{:016x}", random(), random()),
            sequence: 0,
            rejected: Vec::new(),
            outcomes: Outcomes::new(metrics),
            log_throttle: LogThrottle::default(),
        };
        let finishing = CancellationToken::new();
        Self { task: tokio::spawn(reports.run(finishing.clone())), finishing }
    }

    /// Reports what is pending, for a limited time, and ends the task.
    pub(crate) async fn finish(mut self) {
        self.finishing.cancel();
        if timeout(FLUSH_TIMEOUT, &mut self.task).await.is_err() {
            self.task.abort();
            warn!("the last usage is lost: the auth service does not respond");
        }
    }
}

/// The counters of reports, by outcome.
struct Outcomes {
    acknowledged: IntCounter,
    failed: IntCounter,
    rejected: IntCounter,
}

impl Outcomes {
    fn new(metrics: &Metrics) -> Self {
        let reports = metrics.counters(
            "muse_usage_reports_total",
            "Reports of usage to the auth service, by outcome: acknowledged, failed (it is sent again), rejected (a \
             count is invalid, and lost; the others are sent again).",
            &["outcome"],
        );
        let counter = |outcome| reports.with_label_values(&[outcome]);
        Self {
            acknowledged: counter("acknowledged"),
            failed: counter("failed"),
            rejected: counter("rejected"),
        }
    }
}

struct ReportTask<S> {
    pending: PendingUsage,
    send: S,
    /// A random id of this process.
    reporter: String,
    /// The number of the last report.
    sequence: u64,
    /// Halves of rejected reports.
    rejected: Vec<Vec<UsageCount>>,
    outcomes: Outcomes,
    log_throttle: LogThrottle,
}

impl<S, F> ReportTask<S>
where
    S: Fn(ReportUsageRequest) -> F,
    F: Future<Output = Result<(), Status>>,
{
    async fn run(mut self, finishing: CancellationToken) {
        loop {
            let is_last = finishing.run_until_cancelled(sleep(REPORT_INTERVAL)).await.is_none();
            // What is counted from now on waits for the next time: under load, reports would otherwise
            // follow each other without a pause.
            let mut due = self.pending.len();
            while is_last || due > 0 || !self.rejected.is_empty() {
                let Some(report) = self.next_report() else { break };
                due = due.saturating_sub(report.counts.len());
                self.deliver(report).await;
            }
            if is_last {
                return;
            }
        }
    }

    /// The next report, if usage is pending.
    fn next_report(&mut self) -> Option<ReportUsageRequest> {
        let counts = self.rejected.pop().unwrap_or_else(|| self.pending.take());
        if counts.is_empty() {
            return None;
        }
        self.sequence += 1;
        Some(ReportUsageRequest { reporter: self.reporter.clone(), sequence: self.sequence, counts })
    }

    /// Sends a report until it is acknowledged, or rejected as invalid. Any other error may have
    /// followed the commit, or is temporary: also UNIMPLEMENTED, of an auth service that is about
    /// to be upgraded.
    async fn deliver(&mut self, report: ReportUsageRequest) {
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        loop {
            let response = timeout(RESPONSE_TIMEOUT, (self.send)(report.clone())).await;
            let response = response.unwrap_or_else(|_| Err(Status::deadline_exceeded("no response in time")));
            let (failure, sequence) = match response {
                Ok(()) => return self.outcomes.acknowledged.inc(),
                Err(failure) => (failure, report.sequence),
            };
            let error = reason(&failure);
            if failure.code() == Code::InvalidArgument {
                self.outcomes.rejected.inc();
                return self.divide(report, &error);
            }
            self.outcomes.failed.inc();
            if self.log_throttle.allows("failed") {
                warn!(sequence, error, "cannot report usage, retrying");
            } else {
                debug!(sequence, error, "cannot report usage, retrying");
            }
            backoff.wait().await;
        }
    }

    /// Divides a report that was rejected, and therefore not counted, so that one invalid count
    /// does not lose the others. A single one is lost.
    fn divide(&mut self, report: ReportUsageRequest, error: &str) {
        let ReportUsageRequest { sequence, mut counts, .. } = report;
        if counts.len() > 1 {
            let second = counts.split_off(counts.len() / 2);
            return self.rejected.extend([second, counts]);
        }
        self.pending.record_dropped();
        if self.log_throttle.allows("rejected") {
            error!(sequence, error, "usage is lost: the auth service rejects it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::Instant;

    use super::*;
    use crate::{batcher::UserName, usage::UsageCounts};

    /// A user whose usage the auth service rejects.
    const INVALID: &str = "invalid";

    /// An auth service that fails as scripted, and counts reports once.
    #[derive(Clone, Default)]
    struct Auth(Arc<Mutex<AuthState>>);

    #[derive(Default)]
    struct AuthState {
        /// The results of the next calls; OK afterwards.
        script: Vec<Option<Status>>,
        received: Vec<(Instant, ReportUsageRequest)>,
        last: u64,
        requests: u64,
    }

    impl Auth {
        fn failing(script: impl IntoIterator<Item = Option<Status>>) -> Self {
            let script = script.into_iter().collect::<Vec<_>>().into_iter().rev().collect();
            Self(Arc::new(Mutex::new(AuthState { script, ..AuthState::default() })))
        }

        /// Applies a report, and then fails if that is next in the script. `None` in the script loses the
        /// request before it arrives.
        fn report(&self, report: ReportUsageRequest) -> Result<(), Status> {
            let mut state = self.0.lock().unwrap();
            state.received.push((Instant::now(), report.clone()));
            let next = state.script.pop();
            if let Some(None) = next {
                return Err(Status::unavailable("lost"));
            }
            if report.counts.iter().any(|count| count.username == INVALID) {
                return Err(Status::invalid_argument("a name"));
            }
            let failed = matches!(&next, Some(Some(status)) if status.code() != Code::DeadlineExceeded);
            if !failed && report.sequence > state.last {
                state.last = report.sequence;
                state.requests += report.counts.iter().map(|count| count.requests).sum::<u64>();
            }
            next.flatten().map_or(Ok(()), Err)
        }

        fn start(&self, pending: &PendingUsage, metrics: &Metrics) -> UsageReporter {
            let auth = self.clone();
            UsageReporter::start(pending.clone(), metrics, move |report| {
                std::future::ready(auth.report(report))
            })
        }

        fn sequences(&self) -> Vec<u64> {
            self.0.lock().unwrap().received.iter().map(|(_, report)| report.sequence).collect()
        }

        fn requests(&self) -> u64 {
            self.0.lock().unwrap().requests
        }
    }

    fn add(pending: &PendingUsage, user: &str) {
        pending.add(&UserName::from(user), None, UsageCounts { requests: 1, ..UsageCounts::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn pending_usage_is_reported_every_interval() {
        let (auth, metrics) = (Auth::default(), Metrics::of("test"));
        let pending = PendingUsage::new(&metrics);
        let (reporter, began) = (auth.start(&pending, &metrics), Instant::now());
        sleep(REPORT_INTERVAL * 3).await;
        assert!(auth.sequences().is_empty(), "nothing to report");
        for number in 0..700 {
            add(&pending, &format!("user {number}"));
        }
        sleep(REPORT_INTERVAL * 2).await;
        assert_eq!((auth.sequences(), auth.requests()), (vec![1, 2], 700));
        for (at, report) in &auth.0.lock().unwrap().received {
            assert_eq!(at.duration_since(began).as_secs() % 2, 0);
            assert!(
                report.reporter.len() == 32 && report.reporter.bytes().all(|byte| byte.is_ascii_hexdigit())
            );
        }
        reporter.finish().await;
    }

    #[tokio::test(start_paused = true)]
    async fn usage_during_a_report_waits_for_the_next() {
        let metrics = Metrics::of("test");
        let pending = PendingUsage::new(&metrics);
        let reports = Arc::new(Mutex::new(0));
        let (counted, meanwhile) = (Arc::clone(&reports), pending.clone());
        let reporter = UsageReporter::start(pending.clone(), &metrics, move |_| {
            *counted.lock().unwrap() += 1;
            add(&meanwhile, "ann");
            std::future::ready(Ok(()))
        });
        add(&pending, "ann");
        sleep(REPORT_INTERVAL * 5 + MIN_BACKOFF).await;
        assert_eq!(*reports.lock().unwrap(), 5);
        drop(reporter);
    }

    #[tokio::test(start_paused = true)]
    async fn report_is_repeated_unchanged_until_acknowledged() {
        // A lost request, a lost response, and an auth service that is older or fails.
        let failures = [
            None,
            Some(Status::deadline_exceeded("the response is lost")),
            Some(Status::unimplemented("older")),
            Some(Status::internal("a fault")),
        ];
        let (auth, metrics) = (Auth::failing(failures), Metrics::of("test"));
        let pending = PendingUsage::new(&metrics);
        let reporter = auth.start(&pending, &metrics);
        add(&pending, "ann");
        sleep(REPORT_INTERVAL + MIN_BACKOFF / 4).await;
        add(&pending, "ann");
        sleep(REPORT_INTERVAL * 5).await;
        assert_eq!((auth.sequences(), auth.requests()), (vec![1, 1, 1, 1, 1, 2], 2));
        let received = auth.0.lock().unwrap().received.clone();
        assert!(received[..5].iter().all(|(_, report)| *report == received[0].1));
        reporter.finish().await;
        let text = metrics.text();
        for line in [
            r#"muse_usage_reports_total{outcome="failed"} 4"#,
            r#"muse_usage_reports_total{outcome="acknowledged"} 2"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn invalid_count_is_dropped_and_no_other() {
        let (auth, metrics) = (Auth::default(), Metrics::of("test"));
        let pending = PendingUsage::new(&metrics);
        let reporter = auth.start(&pending, &metrics);
        for number in 0..100 {
            add(&pending, &format!("user {number}"));
        }
        add(&pending, INVALID);
        sleep(REPORT_INTERVAL * 2).await;
        assert_eq!(auth.requests(), 100);
        assert!(metrics.text().contains("muse_usage_dropped_total 1"));
        let sequences = auth.sequences();
        assert!(sequences.is_sorted_by(|a, b| a < b) && sequences.len() < 20, "{sequences:?}");
        add(&pending, "ann");
        reporter.finish().await;
        assert_eq!(auth.requests(), 101);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_flushes_within_its_timeout() {
        let (auth, metrics) = (Auth::failing([None]), Metrics::of("test"));
        let pending = PendingUsage::new(&metrics);
        let reporter = auth.start(&pending, &metrics);
        add(&pending, "ann");
        reporter.finish().await;
        assert_eq!((auth.sequences(), auth.requests()), (vec![1, 1], 1));

        // An auth service that does not respond.
        let reporter = UsageReporter::start(pending.clone(), &Metrics::of("test"), |_| {
            std::future::pending::<Result<(), Status>>()
        });
        add(&pending, "ann");
        let began = Instant::now();
        reporter.finish().await;
        assert_eq!(began.elapsed().as_secs(), FLUSH_TIMEOUT.as_secs());
    }
}
