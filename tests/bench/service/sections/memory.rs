//! Memory after load.

use super::{Bench, CLIENTS, SENTENCES};
use crate::{
    figures::{Figures, Short},
    load::closed_loop,
    report::{Table, Target, progress},
};

/// PSS of the programs after a load with usual requests and one with large requests, at most `most`
/// MB. Returns it, rounded up.
pub(crate) async fn measure(bench: &mut Bench<'_>, most: f64) -> f64 {
    progress("memory after load");
    let mut clients = bench.grpc_clients(CLIENTS).await;
    for sentences in [SENTENCES, 512] {
        closed_loop(&mut clients, &bench.workload.texts.calls(sentences), bench.options.window()).await;
    }
    let memory = bench.programs.memory();
    let whole: f64 = memory.iter().map(|(_, megabytes)| megabytes).sum();
    bench.report.row(
        "PSS of all services after load",
        "MB",
        Target::AtMost(most),
        Figures::from_iter([whole]),
    );
    let mut table = Table::new(&["service", "PSS, MB"]);
    for (name, megabytes) in memory {
        table.line(&[name, Short(megabytes).to_string()]);
    }
    bench.report.detail("Memory after load", table.text());
    whole.ceil()
}
