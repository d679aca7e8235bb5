//! A cluster of three brokers loses one node after another under load.
//!
//! The queues are quorum queues of three members. The killed node leads some of the queues and has
//! the connections of some workers; the other two nodes go on.

use crate::instance::Instance;
use crate::report::{full, report, seed};
use crate::support::audit::{Audit, AuditResult};
use crate::support::load::Load;
use crate::support::*;

const NODES: [&str; 3] = ["rabbit", "rabbit2", "rabbit3"];

#[tokio::test]
async fn killing_nodes_of_a_cluster_loses_nothing() {
    let (seed, rounds) = (seed(), if full() { 9 } else { 2 });
    let (instance, servers) = Instance::cluster();
    let mut count = AuditResult::default();
    for round in 0..rounds {
        // Queues of its own: RabbitMQ may keep a consumer of a dead node on a queue, and give it
        // messages when the queue's next leader dies.
        let mut env = TestEnv::on(servers.clone()).await;
        env.set("WORKER__BATCH_MAX", "20");
        let workers = vec![env.start_worker().await, env.start_worker().await];
        let rng = seed.wrapping_add(round);
        // No request of a plain load climbs the ladder. A message on a rung of a lost node may stay
        // there for three minutes or more, because the broker itself publishes it.
        let is_plain = !full() || round + 1 < rounds;
        let load = if is_plain {
            Load::plain(&env, rng, 1000).await
        } else {
            Load::mixed(&env, rng, 1000).await
        };
        // First the node that leads the work queue, then one that does not.
        let leader = leader(&instance, &env.name("work"));
        let mut nodes = NODES.iter().cycle().skip_while(|node| **node != leader);
        let node = if round % 2 == 0 {
            nodes.next()
        } else {
            nodes.nth(1)
        };
        let node = node.expect("a cycle");
        let fault = async {
            eventually("work goes on", async || outcomes(&env).await > 0).await;
            instance.run_action("kill", node).await;
        };
        tokio::join!(load.publish(&env), fault);
        let mut audit = Audit::of(&env);
        assert!(
            !is_plain || audit.await_answers(&load).await,
            "two of three nodes answer everything"
        );
        instance.run_action("start-one", node).await;
        audit.await_answers(&load).await;
        count += audit
            .collect(workers)
            .await
            .compare_with_model(&load, &env.db)
            .await;
    }
    report(
        "cluster: a node killed",
        usize::try_from(rounds).expect("few"),
        count,
    );
}

async fn outcomes(env: &TestEnv) -> i64 {
    env.count("SELECT count(*) FROM revertd.outcomes").await
}

/// The node that leads a queue. The name of a node begins with its kind.
fn leader(instance: &Instance, queue: &str) -> &'static str {
    let listed = instance.ctl(&["-q", "list_queues", "name", "leader"]);
    let mut lines = listed.lines().filter_map(|line| line.split_once('\t'));
    let (_, node) = lines.find(|(name, _)| *name == queue).expect("it is there");
    let leads = |kind: &&&str| node.split('-').next() == Some(**kind);
    NODES.iter().find(leads).expect("one of the three")
}
