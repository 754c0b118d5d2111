//! What a client costs as its fleet grows: time per pick, memory, connections.

use std::{hint::black_box, sync::Arc, time::Duration};

use allocation_counter::measure;
use evenkeel_core::{
    endpoint::Endpoint,
    node::Node,
    policy::{self, PickContext, Picker},
    rng::Rng,
};

use super::{Failure, Studio};
use crate::{
    chart::{Line, Lines},
    policies::{balancing, hashing},
    report::{Report, Table, percent},
    rules::address_of,
    run::Job,
    scenario::Scenario,
    time::{START, Stopwatch},
};

const SIZES: [u32; 5] = [10, 100, 1_000, 10_000, 100_000];

pub(super) fn make(studio: &Studio) -> Result<(), Failure> {
    let mut document = studio.document("scale")?;
    let mut picks = Table::new(["ns a pick", "10", "100", "1,000", "10,000", "100,000"]);
    let mut memory = Table::new(["bytes an endpoint", "10", "100", "1,000", "10,000", "100,000"]);
    let mut chart = Lines::new("What a pick costs", "endpoints", "ns").log_x().log_y();
    for name in balancing().into_iter().chain(hashing()) {
        let measured = SIZES.map(|size| measure_policy(name, size, studio));
        let cells = measured.iter().map(|cost| format!("{:.0}", cost.pick));
        picks.row(std::iter::once(name.to_owned()).chain(cells));
        let cells = measured.iter().map(|cost| format!("{:.0}", cost.bytes));
        memory.row(std::iter::once(name.to_owned()).chain(cells));
        let points = SIZES.iter().zip(&measured).map(|(size, cost)| (f64::from(*size), cost.pick));
        chart = chart.line(Line::new(name, points));
    }
    studio.chart(&chart, "scale_picks")?;
    document.table("picks", &picks);
    document.table("memory", &memory);
    document.table("connections", &connections(studio)?);
    document.write()
}

/// What one policy costs at one size.
struct Cost {
    pick: f64,
    bytes: f64,
}

fn measure_policy(name: &str, size: u32, studio: &Studio) -> Cost {
    let policy = policy::by_name(name).expect("it ships");
    let mut built: Option<(Vec<Arc<Node>>, Box<dyn Picker>)> = None;
    let allocated = measure(|| {
        let nodes: Vec<_> = (0..size)
            .map(|server| Arc::new(Node::new(Endpoint::new(address_of(server)))))
            .collect();
        let picker = policy.build(&nodes, None);
        built = Some((nodes, picker));
    });
    let (nodes, picker) = built.expect("built above");
    let mut rng = Rng::with_seed(1);
    let time = Duration::from_millis(if studio.is_quick { 2 } else { 40 });
    // The best of several rounds: a disturbance only makes a round longer.
    let rounds = (0..5).map(|_| round(&nodes, &*picker, &mut rng, time));
    Cost {
        pick: rounds.fold(f64::INFINITY, f64::min),
        bytes: allocated.bytes_current as f64 / f64::from(size),
    }
}

fn round(nodes: &[Arc<Node>], picker: &dyn Picker, rng: &mut Rng, time: Duration) -> f64 {
    let (stopwatch, mut picks) = (Stopwatch::start(), 0_u32);
    let now = evenkeel_core::time::Timestamp::from_nanos(START);
    while stopwatch.elapsed() < time {
        // Fewer picks for policies that look at all nodes.
        for _ in 0..64 {
            let hash = Some(rng.below_u64(u64::MAX));
            let mut cx = PickContext::new(rng);
            (cx.now, cx.hash) = (now, hash);
            black_box(picker.pick(nodes, &mut cx));
        }
        picks += 64;
    }
    stopwatch.elapsed().as_nanos() as f64 / f64::from(picks)
}

/// How many clients a server hears from, with and without subsets.
fn connections(studio: &Studio) -> Result<Table, Failure> {
    let mut table = Table::new([
        "clients × servers",
        "each client knows",
        "connections a client",
        "clients a server: mean",
        "most",
        "traffic of the busiest server, in fair shares",
        "p99 ms",
    ]);
    for (clients, servers, subset) in [
        (100, 100, 0),
        (100, 100, 20),
        (1_000, 1_000, 0),
        (1_000, 1_000, 100),
        (1_000, 1_000, 20),
        (1_000, 1_000, 5),
    ] {
        let mut scenario = Scenario::built_in("medium")?;
        (scenario.clients.count, scenario.clients.subset) = (clients, subset);
        scenario.servers[0].count = servers;
        let reports = studio.run(&[Job::new(studio.sized(scenario), "p2c")]);
        table.row(connection_cells(&reports[0], clients, servers, subset));
    }
    Ok(table)
}

fn connection_cells(report: &Report, clients: u32, servers: u32, subset: u32) -> Vec<String> {
    let phase = report.phase();
    let known = if subset == 0 { "all".into() } else { subset.to_string() };
    let of_client = report.connections_mean * f64::from(servers) / f64::from(clients);
    vec![
        format!("{clients} × {servers}"),
        known,
        format!("{of_client:.0}"),
        format!("{:.0}", report.connections_mean),
        report.connections_max.to_string(),
        percent(phase.worst_share / phase.fair_share),
        crate::report::millis(phase.p99),
    ]
}
